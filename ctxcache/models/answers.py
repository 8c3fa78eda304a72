"""The answers of both endpoints, read tolerantly.

Missing fields have defaults, enum values are plain strings, and fields unknown to this version are in `.raw`. The JSON
is kept as the bytes received, and parsed only when `.raw` is read.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import attrs

from ..config import UNSET, Unset
from ..errors import ProtocolError
from ..response_head import NO_HEAD, ResponseHead
from ..structs import struct
from .plain import BESIDE, NOT_WRITTEN, FromJSON, Model

_SHOWN_ARGUMENTS: Final = 2000

if TYPE_CHECKING:
    FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"] | str
else:
    FinishReason: TypeAlias = str  # any: a service may have reasons of its own

__all__ = [
    "AssistantMessage",
    "ChatCompletion",
    "ChatCompletionChunk",
    "Choice",
    "ChoiceDelta",
    "ChunkChoice",
    "CompletionTokensDetails",
    "Context",
    "FinishReason",
    "FunctionCall",
    "PromptTokensDetails",
    "ToolCall",
    "TruncationStrategy",
    "Usage",
]


@attrs.frozen(kw_only=True)
class TruncationStrategy(Model):
    """How a session context makes room when the history outgrows the window.

    Attributes:
        type: `last_history_tokens` (keep the newest N tokens of history, drop the oldest first) or `rolling_tokens`
            (drop the oldest block near the window's end and recompute; that turn has no cached tokens).
        last_history_tokens: N, for the type of that name; 4096 is the service's default.
        rolling_tokens: False stops generating at the window's end instead, with `finish_reason` `length`.
        max_window_tokens, rolling_window_tokens: sizes some gateways take.

    Source: vendor documentation; an answer may name other types, a request may not.
    """

    type: str
    last_history_tokens: int | Unset = UNSET
    rolling_tokens: bool | Unset = UNSET
    max_window_tokens: int | Unset = UNSET
    rolling_window_tokens: int | Unset = UNSET


@final
@struct(kw_only=True)
class PromptTokensDetails(Model):
    """Details of the prompt tokens: how many came from the cache."""

    cached_tokens: int = 0


@final
@struct(kw_only=True)
class CompletionTokensDetails(Model):
    """Details of the completion tokens: how many were reasoning."""

    reasoning_tokens: int = 0


@final
@struct(kw_only=True)
class Usage(Model):
    """The token counts of a call.

    Attributes:
        prompt_tokens: the whole input, **cached tokens included** (vendor documentation).
        completion_tokens: the output.
        total_tokens: the sum, as sent.
        prompt_tokens_details, completion_tokens_details: the parts, None where not sent.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Input tokens read from the cache; 0 where the service does not say."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else 0

    @property
    def fresh_tokens(self) -> int:
        """Input tokens that were not cached: `prompt_tokens - cached_tokens`."""
        return self.prompt_tokens - self.cached_tokens

    @property
    def reasoning_tokens(self) -> int:
        """Output tokens that were reasoning; 0 where the service does not say."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else 0

    def __add__(self, other: "Usage") -> "Usage":
        """Add up, field by field; `sum(usages, Usage())` adds up many."""
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self.cached_tokens + other.cached_tokens),
            completion_tokens_details=CompletionTokensDetails(
                reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens
            ),
        )


class _Answer(FromJSON):
    """The answer to a call."""

    __slots__ = ()
    _head: ResponseHead

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response: names in any case; empty for an object made by hand."""
        return self._head

    @property
    def status(self) -> int | None:
        """The HTTP status; None for an object made by hand."""
        return self._head.status


@attrs.frozen(kw_only=True)
class Context(_Answer):
    """A context, as `/context/create` answered. No endpoint returns a context again: keep what you need.

    Attributes:
        id: to be passed as `context_id`.
        mode: `session` or `common_prefix`.
        ttl: idle seconds after which the context is removed; None where neither service nor caller said.
        model: the model of the context.
        truncation_strategy: the strategy in force, or None.
        usage: the token counts of the create, or None.
        request_id: the service's id of the request (`X-Request-Id`), or None.
        log_id: the service's log id (`X-Tt-Logid`), or None.
        client_request_id: our id of the call (`X-Client-Request-Id`).
        raw_json: the JSON as received; b"" for an object made by hand.
        headers, status: of the response.
    """

    id: str
    mode: str = "session"
    ttl: int | None = None
    model: str | None = None
    truncation_strategy: TruncationStrategy | None = None
    usage: Usage | None = None
    request_id: str | None = attrs.field(default=None, eq=False, metadata=BESIDE)
    log_id: str | None = attrs.field(default=None, eq=False, repr=False, metadata=BESIDE)
    client_request_id: str | None = attrs.field(default=None, eq=False, repr=False, metadata=BESIDE)
    raw_json: bytes = attrs.field(default=b"", eq=False, repr=False, metadata=BESIDE)
    _head: ResponseHead = attrs.field(default=NO_HEAD, eq=False, repr=False, metadata=BESIDE)


@attrs.frozen(kw_only=True)
class FunctionCall(Model):
    """The function that a model wants called; `arguments` is text written by the model, usually JSON."""

    name: str = ""
    arguments: str = ""


@attrs.frozen(kw_only=True)
class ToolCall(Model):
    """A tool call that a model asks for.

    Attributes:
        id: goes back as `tool_call_id` of the message with the result.
        type: `function`.
        function: the name and arguments.
    """

    id: str = ""
    type: str = "function"
    function: FunctionCall = FunctionCall()

    def json(self) -> Any:
        """Parse the arguments; "" is an empty object.

        Raises:
            ProtocolError: the arguments are not JSON.
        """
        if not self.function.arguments.strip():
            return {}
        try:
            return json.loads(self.function.arguments)
        except (ValueError, RecursionError) as error:
            problem = str(error)
        shown = self.function.arguments[:_SHOWN_ARGUMENTS]
        raise ProtocolError(f"the arguments of {self.function.name} must be JSON: {problem}", body=shown)


@attrs.frozen(kw_only=True)
class AssistantMessage(Model):
    """The message of an answer; a later request takes the object as a message.

    Attributes:
        role: `assistant`.
        content: the text; None beside tool calls.
        reasoning_content: the reasoning of models that show it; not sent in later requests.
        tool_calls: the calls that the model asks for, or None.
    """

    role: str = "assistant"
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None


@attrs.frozen(kw_only=True)
class Choice(Model):
    """A reply.

    `finish_reason` is `stop`, `length`, `content_filter` or `tool_calls`; None until the end of a stream.
    """

    index: int = 0
    message: AssistantMessage
    finish_reason: FinishReason | None = None
    logprobs: dict[str, Any] | None = attrs.field(default=None, hash=False)


@attrs.frozen(kw_only=True)
class ChatCompletion(_Answer):
    """A whole answer, received at once or folded from a stream.

    Attributes:
        id: the service's id of the completion.
        choices: the replies by index; `n` of them.
        usage: None where the service sent none (a stream without `include_usage`).
        object, created, model, service_tier: as sent; `created` in Unix seconds.
        context_id: the context that the chat ran on: of a `Prefix`, the context of the last attempt. None for an object
            made by hand.
        request_id, log_id, client_request_id: as in `Context`.
        raw_json: the JSON as received; b"" for an object made by hand or folded from chunks.
        headers, status: of the response, such as `headers["x-ratelimit-remaining-requests"]`.
    """

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: tuple[Choice, ...] = ()
    usage: Usage | None = None
    service_tier: str | None = None
    context_id: str | None = attrs.field(default=None, eq=False, repr=False, metadata=BESIDE)
    request_id: str | None = attrs.field(default=None, eq=False, metadata=BESIDE)
    log_id: str | None = attrs.field(default=None, eq=False, repr=False, metadata=BESIDE)
    client_request_id: str | None = attrs.field(default=None, eq=False, repr=False, metadata=BESIDE)
    raw_json: bytes = attrs.field(default=b"", eq=False, repr=False, metadata=BESIDE)
    _head: ResponseHead = attrs.field(default=NO_HEAD, eq=False, repr=False, metadata=BESIDE)

    @property
    def message(self) -> AssistantMessage:
        """Choice 0's message, which a later request takes unchanged; an empty message where there is none."""
        choice = self._first
        return AssistantMessage() if choice is None else choice.message

    @property
    def text(self) -> str:
        """Choice 0's text; "" where there is none."""
        choice = self._first
        return "" if choice is None else choice.message.content or ""

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Choice 0's tool calls; () where there are none."""
        choice = self._first
        return () if choice is None else choice.message.tool_calls or ()

    @property
    def finish_reason(self) -> FinishReason | None:
        """Choice 0's finish reason."""
        choice = self._first
        return None if choice is None else choice.finish_reason

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were read from the cache; 0 where the service does not say."""
        return 0 if self.usage is None else self.usage.cached_tokens

    @property
    def _first(self) -> Choice | None:
        for choice in self.choices:
            if choice.index == 0:
                return choice
        return None


@final
@struct(kw_only=True)
class ChoiceDelta(Model):
    """The additions of a chunk to a reply; `tool_calls` are fragments, as sent by the service."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[dict[str, Any], ...] | None = attrs.field(default=None, hash=False)


@final
@struct(kw_only=True)
class ChunkChoice(Model):
    """The part of a chunk that belongs to a reply."""

    index: int = 0
    delta: ChoiceDelta = ChoiceDelta()
    finish_reason: FinishReason | None = None
    logprobs: dict[str, Any] | None = attrs.field(default=None, hash=False)


@final
@struct(kw_only=True)
class ChatCompletionChunk(FromJSON):
    """An event of a stream.

    Attributes:
        choices: usually one; empty in the chunk that only carries `usage`.
        usage: None, except in the chunk that reports the usage.
        error: the error of an error event, raised by the stream; None in every delivered chunk.
        raw_json: the JSON as received.
        id, object, created, model, service_tier: as in `ChatCompletion`.
    """

    id: str = ""
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
    created: int = 0
    model: str = ""
    object: str = "chat.completion.chunk"
    service_tier: str | None = None
    error: Any = attrs.field(default=None, hash=False, metadata=NOT_WRITTEN)
    raw_json: bytes = attrs.field(default=b"", eq=False, repr=False, metadata=BESIDE)

    @property
    def text(self) -> str:
        """Choice 0's new text; "" where there is none."""
        for choice in self.choices:
            if choice.index == 0:
                return choice.delta.content or ""
        return ""
