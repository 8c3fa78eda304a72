"""Adapters for frameworks, each an extra of its own. Nothing else in the package imports this folder.

Floors, from the top; a file imports from lower floors only::

    langchain             ChatCtxCache: a chat model of LangChain over a Prefix or a Conversation
    pydantic_ai           CtxCacheModel: a model of Pydantic AI, likewise
    pydantic_ai_requests  its requests as questions
    litellm               CtxCacheLLM: a custom provider of LiteLLM, likewise
    history               which messages a Conversation does not have yet
    sync                  calls into an event loop from plain threads and from other event loops
"""
