"""What travels: requests, checked strictly; answers, read tolerantly. Frozen attrs classes, shared with the gateway."""

from .answers import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionTokensDetails,
    Context,
    PromptTokensDetails,
    Usage,
)
from .requests import (
    DEFAULT_TTL,
    ChatRequest,
    ContextRequest,
    Message,
    MessageLike,
    TruncationStrategy,
    assistant,
    system,
    user,
)

__all__ = [
    "DEFAULT_TTL",
    "AssistantMessage",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatRequest",
    "Choice",
    "ChoiceDelta",
    "ChunkChoice",
    "CompletionTokensDetails",
    "Context",
    "ContextRequest",
    "Message",
    "MessageLike",
    "PromptTokensDetails",
    "TruncationStrategy",
    "Usage",
    "assistant",
    "system",
    "user",
]
