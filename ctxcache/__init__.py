"""The async-first SDK for context caching: keep a long prompt on the model's side, chat against it many times.

Where is what. A file at the top is pure: it awaits nothing, opens no socket and reads no clock. A folder does things.
From the top floor down; a file imports from lower floors only::

    cli/        the `ctxcache` command
    managed/    contexts that look after themselves     gateway/    a local server with both endpoints
    client/     one call, from the session to the socket
    ---- pure ----
    wire        requests, answers, events               fold        chunks to one completion
    service_errors an answer to the error it is         retry       when to try again
    codec       JSON to models and back                 sse         bytes to events, by the standard
    models/     what travels                            structs     how the models on the hot path are made
    checks      what a value must be                    config      settings
    errors      the error tree

A public name is loaded when it is first asked for, so `import ctxcache` costs next to nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in typing, which would take longer to import than all else here
if TYPE_CHECKING:
    from .client.hooks import CallEvent, CreateEvent, Hooks, RecreateEvent, RetryEvent, WarningEvent
    from .client.resources.chat import ChatOptions, ChatParameters
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
        SessionError,
        StreamInterruptedError,
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
        Context,
        FinishReason,
        FunctionCall,
        Message,
        MessageLike,
        MessageObject,
        PromptTokensDetails,
        ToolCall,
        TruncationStrategy,
        Usage,
        assistant,
        system,
        tool,
        user,
    )

# Where each public name is.
_PLACES = {
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
    "ChatOptions": ".client.resources.chat",
    "ChatParameters": ".client.resources.chat",
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
    "Hooks",
    "InternalServerError",
    "InvalidInputError",
    "Limits",
    "MalformedStreamError",
    "ManagedStream",
    "Map",
    "MemoryStore",
    "Message",
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
    "Retry",
    "RetryEvent",
    "SQLiteStore",
    "SessionError",
    "Store",
    "StoredContext",
    "StreamInterruptedError",
    "Timeouts",
    "ToolCall",
    "TranscriptTurn",
    "TruncationStrategy",
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
    globals()[name] = value  # so that this is asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
