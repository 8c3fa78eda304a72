"""The async-first SDK for context caching: keep a long prompt on the model's side, chat against it many times.

Where is what, from the top::

    cli/        the `ctxcache` command            managed/    contexts that look after themselves
    session     AsyncSession                      gateway/    a local server with both endpoints
    stream      ChatStream                        resources/  one file an endpoint
    calls       a call's life: attempts, ids      turns       who is next on a session context
    transport/  one attempt, the pool, aiohttp    hooks       who is told of what happens
    slots       waiting in line                   wire        requests, answers, which error
    retry       when to try again                 fold        chunks to one completion
    codec       JSON to models and back           models/     what travels
    sse         bytes to events, by the standard  structs     how the models are made
    config      settings                          errors      the error tree

A name is loaded when it is first asked for, so `import ctxcache` costs next to nothing.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in typing, which would take longer to import than all else here
if TYPE_CHECKING:
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
    from .hooks import CallEvent, CreateEvent, Hooks, RecreateEvent, RetryEvent, WarningEvent
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
        Message,
        MessageLike,
        PromptTokensDetails,
        TruncationStrategy,
        Usage,
        assistant,
        system,
        user,
    )
    from .session import AsyncSession
    from .stream import ChatStream

# Where to look for a name, in this order: who asks for one of a high floor needs those below it anyway.
_ROOMS = ("errors", "config", "models", "hooks", "stream", "session", "managed")

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
    "TranscriptTurn",
    "TruncationStrategy",
    "Unset",
    "Usage",
    "WarningEvent",
    "__version__",
    "assistant",
    "system",
    "user",
]


def __getattr__(name: str) -> object:
    """Load a public name, or a room."""
    if name in __all__:
        rooms = (import_module(f".{room}", __name__) for room in _ROOMS)
        value: object = next(getattr(room, name) for room in rooms if hasattr(room, name))
        globals()[name] = value  # so that this is asked once
        return value
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
