"""`ChatCtxCache`: a chat model of LangChain, on a context. The extra is `langchain`.

Floors, from the top; a file imports from lower floors only::

    chat       ChatCtxCache: settings, calls, tools, structured output
    home       the Prefix or Conversation of a model, and the event loop in which its calls run
    turns      which messages of a list are the new turn of a Conversation
    messages   LangChain's messages as ours         answers   our answers as LangChain's
    tools      LangChain's tools and schemas as parameters of a chat
"""

from .chat import ChatCtxCache

__all__ = ["ChatCtxCache"]
