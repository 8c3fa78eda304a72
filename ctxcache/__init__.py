"""The async-first SDK for context caching: keep a long prompt on the model's side, chat against it many times.

Files at the top level are pure: no await, no socket, no clock. Folders do the work. The floors, from the top (a file
imports from lower floors only)::

    cli/        the `ctxcache` command
    proxy/      OpenAI's chat endpoint in front of contexts
    cluster/    a prefix in the workers of Dask and Ray
    testing/    a gateway for tests of services, and pytest's fixtures
    managed/    contexts that look after themselves     gateway/    a local server with both endpoints
    client/     a call, from the session to the socket
    ---- pure ----
    wire            requests, answers, events           fold        chunks to a completion
    service_errors  error answers to exceptions         retry       when to try again
    codec           JSON to models and back             sse         bytes to events, by the standard
    models/         requests and answers                structs     a fast layout for models on the hot path
    response_head   status and headers of an answer
    checks          argument checks                     config      settings
    errors          the error tree                      hosts       public hosts, proxies
    keywords        arguments that do not exist         log         the logger

Public names are loaded at first use, so `import ctxcache` costs next to nothing.
"""

from importlib import import_module

TYPE_CHECKING = __name__ == ""  # never; not False, or static completion skips what follows; `typing` loads slowly
if TYPE_CHECKING:
    from .client.hooks import CallEvent, CreateEvent, Hooks, RecreateEvent, RetryEvent, WarningEvent
    from .client.resources.parameters import ChatOptions, ChatParameters
    from .client.session import AsyncSession
    from .client.stream import ChatStream
    from .config import UNSET, Limits, Retry, Timeouts, Unset, __version__
    from .errors import (
        APIConnectionError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        ContextBusyError,
        ContextGoneError,
        CtxCacheError,
        EventTooLargeError,
        InternalServerError,
        InvalidInputError,
        MalformedStreamError,
        NotFoundError,
        OutcomeUnknownError,
        PermissionDeniedError,
        ProtocolError,
        QuotaExceededError,
        RateLimitError,
        ReplyLostError,
        ReplyTimeoutError,
        SessionError,
        StreamInterruptedError,
        TurnInDoubtError,
    )
    from .managed import (
        Answer,
        Conversation,
        Cost,
        ManagedStream,
        Map,
        MemoryStore,
        Prefix,
        Prices,
        RedisStore,
        SQLiteStore,
        Store,
        StoredContext,
        TranscriptTurn,
    )
    from .models import (
        AssistantMessage,
        ChatCompletion,
        ChatCompletionChunk,
        Choice,
        ChoiceDelta,
        ChunkChoice,
        CompletionTokensDetails,
        ContentPartDict,
        Context,
        FinishReason,
        FunctionCall,
        FunctionCallDict,
        FunctionDict,
        JSONSchemaDict,
        Message,
        MessageDict,
        MessageLike,
        MessageObject,
        PromptTokensDetails,
        ResponseFormatDict,
        StreamOptionsDict,
        ThinkingDict,
        ToolCall,
        ToolCallDict,
        ToolChoiceDict,
        ToolDict,
        TruncationStrategy,
        TruncationStrategyDict,
        Usage,
        assistant,
        system,
        tool,
        user,
    )

# The module of each public name.
_PLACES = {
    "ContentPartDict": ".models",
    "FunctionCallDict": ".models",
    "FunctionDict": ".models",
    "JSONSchemaDict": ".models",
    "MessageDict": ".models",
    "ResponseFormatDict": ".models",
    "StreamOptionsDict": ".models",
    "ThinkingDict": ".models",
    "ToolCallDict": ".models",
    "ToolChoiceDict": ".models",
    "ToolDict": ".models",
    "TruncationStrategyDict": ".models",
    "UNSET": ".config",
    "APIConnectionError": ".errors",
    "APIStatusError": ".errors",
    "APITimeoutError": ".errors",
    "Answer": ".managed",
    "AssistantMessage": ".models",
    "AsyncSession": ".client.session",
    "AuthenticationError": ".errors",
    "BadRequestError": ".errors",
    "CallEvent": ".client.hooks",
    "ChatCompletion": ".models",
    "ChatCompletionChunk": ".models",
    "ChatOptions": ".client.resources.parameters",
    "ChatParameters": ".client.resources.parameters",
    "ChatStream": ".client.stream",
    "Choice": ".models",
    "ChoiceDelta": ".models",
    "ChunkChoice": ".models",
    "CompletionTokensDetails": ".models",
    "Context": ".models",
    "ContextBusyError": ".errors",
    "ContextGoneError": ".errors",
    "Conversation": ".managed",
    "Cost": ".managed",
    "CreateEvent": ".client.hooks",
    "CtxCacheError": ".errors",
    "EventTooLargeError": ".errors",
    "FinishReason": ".models",
    "FunctionCall": ".models",
    "Hooks": ".client.hooks",
    "InternalServerError": ".errors",
    "InvalidInputError": ".errors",
    "Limits": ".config",
    "MalformedStreamError": ".errors",
    "ManagedStream": ".managed",
    "Map": ".managed",
    "MemoryStore": ".managed",
    "Message": ".models",
    "MessageLike": ".models",
    "MessageObject": ".models",
    "NotFoundError": ".errors",
    "OutcomeUnknownError": ".errors",
    "PermissionDeniedError": ".errors",
    "Prefix": ".managed",
    "Prices": ".managed",
    "PromptTokensDetails": ".models",
    "ProtocolError": ".errors",
    "QuotaExceededError": ".errors",
    "RateLimitError": ".errors",
    "ReplyLostError": ".errors",
    "ReplyTimeoutError": ".errors",
    "RecreateEvent": ".client.hooks",
    "RedisStore": ".managed",
    "Retry": ".config",
    "RetryEvent": ".client.hooks",
    "SQLiteStore": ".managed",
    "SessionError": ".errors",
    "Store": ".managed",
    "StoredContext": ".managed",
    "StreamInterruptedError": ".errors",
    "Timeouts": ".config",
    "ToolCall": ".models",
    "TranscriptTurn": ".managed",
    "TruncationStrategy": ".models",
    "TurnInDoubtError": ".errors",
    "Unset": ".config",
    "Usage": ".models",
    "WarningEvent": ".client.hooks",
    "__version__": ".config",
    "assistant": ".models",
    "system": ".models",
    "tool": ".models",
    "user": ".models",
}

__all__ = [
    "UNSET",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Answer",
    "AssistantMessage",
    "AsyncSession",
    "AuthenticationError",
    "BadRequestError",
    "CallEvent",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatOptions",
    "ChatParameters",
    "ChatStream",
    "Choice",
    "ChoiceDelta",
    "ChunkChoice",
    "CompletionTokensDetails",
    "ContentPartDict",
    "Context",
    "ContextBusyError",
    "ContextGoneError",
    "Conversation",
    "Cost",
    "CreateEvent",
    "CtxCacheError",
    "EventTooLargeError",
    "FinishReason",
    "FunctionCall",
    "FunctionCallDict",
    "FunctionDict",
    "Hooks",
    "InternalServerError",
    "InvalidInputError",
    "JSONSchemaDict",
    "Limits",
    "MalformedStreamError",
    "ManagedStream",
    "Map",
    "MemoryStore",
    "Message",
    "MessageDict",
    "MessageLike",
    "MessageObject",
    "NotFoundError",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "Prefix",
    "Prices",
    "PromptTokensDetails",
    "ProtocolError",
    "QuotaExceededError",
    "RateLimitError",
    "RecreateEvent",
    "RedisStore",
    "ReplyLostError",
    "ReplyTimeoutError",
    "ResponseFormatDict",
    "Retry",
    "RetryEvent",
    "SQLiteStore",
    "SessionError",
    "Store",
    "StoredContext",
    "StreamInterruptedError",
    "StreamOptionsDict",
    "ThinkingDict",
    "Timeouts",
    "ToolCall",
    "ToolCallDict",
    "ToolChoiceDict",
    "ToolDict",
    "TranscriptTurn",
    "TruncationStrategy",
    "TruncationStrategyDict",
    "TurnInDoubtError",
    "Unset",
    "Usage",
    "WarningEvent",
    "__version__",
    "assistant",
    "system",
    "tool",
    "user",
]


def __getattr__(name: str) -> object:
    """Load a public name."""
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(place, __name__), name)
    globals()[name] = value  # found there from now on, without a call
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
