"""The async-first SDK for context caching: keep a long prompt on the model's side, chat against it many times.

Where is what, from the top::

    cli/        the `ctxcache` command            gateway/    a local server with both endpoints
    session     AsyncSession                      resources/  one file an endpoint
    stream      ChatStream                        calls       a call's life: turns, attempts, ids, log
    transport/  one attempt, the pool, aiohttp    turns       who is next on a session context
    wire        requests, answers, which error    retry       when to try again
    codec       JSON to models and back           fold        chunks to one completion
    models/     what travels                      sse         bytes to events, by the standard
    hooks       who is told of what happens       config      settings
    errors      the error tree
"""

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

__all__ = [
    "UNSET",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
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
    "CreateEvent",
    "CtxCacheError",
    "EventTooLargeError",
    "Hooks",
    "InternalServerError",
    "InvalidInputError",
    "Limits",
    "MalformedStreamError",
    "Message",
    "MessageLike",
    "NotFoundError",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "PromptTokensDetails",
    "ProtocolError",
    "QuotaExceededError",
    "RateLimitError",
    "RecreateEvent",
    "Retry",
    "RetryEvent",
    "SessionError",
    "StreamInterruptedError",
    "Timeouts",
    "TruncationStrategy",
    "Unset",
    "Usage",
    "WarningEvent",
    "__version__",
    "assistant",
    "system",
    "user",
]
