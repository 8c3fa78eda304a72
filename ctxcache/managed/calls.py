"""The calls that a `Prefix` and a `Conversation` have in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..client.resources.parameters import ChatParameters, given
from ..client.session import AsyncSession
from ..config import Retry, Timeouts, Unset, hide
from ..keywords import refusing
from ..models import (
    ChatCompletion,
    ResponseFormatDict,
    StreamOptionsDict,
    ThinkingDict,
    ToolChoiceDict,
    ToolDict,
)
from .question import Question, refuse_own_options
from .stream import ManagedStream

__all__ = ["ManagedCalls"]


class ManagedCalls(ABC):
    """Asks one question, whole or streamed, with the parameters of `session.chat.create`.

    Args:
        session: makes the calls.
        chat_defaults: parameters of every call that does not give its own, from `hidden_defaults`.

    Raises:
        InvalidInputError: a default is out of range.
    """

    def __init__(self, session: AsyncSession, chat_defaults: ChatParameters) -> None:
        self._session = session.with_options(chat_defaults=chat_defaults) if chat_defaults else session
        told = "stream_options" in self._session.chat.defaults
        self._stream_defaults: ChatParameters = {} if told else {"stream_options": {"include_usage": True}}

    @property
    def session(self) -> AsyncSession:
        """The session that makes the calls."""
        return self._session

    @refusing(refuse_own_options)
    async def ask(
        self,
        question: Question,
        *,
        temperature: float | Unset | None = None,
        top_p: float | Unset | None = None,
        n: int | Unset | None = None,
        stop: str | Iterable[str] | Unset | None = None,
        max_tokens: int | Unset | None = None,
        presence_penalty: float | Unset | None = None,
        frequency_penalty: float | Unset | None = None,
        repetition_penalty: float | Unset | None = None,
        tools: Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None = None,
        tool_choice: str | ToolChoiceDict | Mapping[str, Any] | Unset | None = None,
        parallel_tool_calls: bool | Unset | None = None,
        response_format: ResponseFormatDict | Mapping[str, Any] | Unset | None = None,
        thinking: ThinkingDict | Mapping[str, Any] | Unset | None = None,
        stream_options: StreamOptionsDict | Mapping[str, Any] | Unset | None = None,
        user: str | Unset | None = None,
        logprobs: bool | Unset | None = None,
        top_logprobs: int | Unset | None = None,
        logit_bias: Mapping[str, float] | Unset | None = None,
        service_tier: str | Unset | None = None,
        repeatable: bool | Unset | None = None,
        serialize: bool | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> ChatCompletion:
        """Ask one question and wait for the whole answer.

        A parameter that is left out, or None, is not sent; `chat_defaults` stand in. `UNSET` leaves out such a default,
        too.

        Args:
            question: a string (a user message), a `Message` or mapping, or a list of those.
            temperature: randomness, in [0, 2].
            top_p: the share of the probability mass to sample from, in [0, 1].
            n: how many replies, from 1 up; a `Conversation` goes on from 1.
            stop: a string, or up to 4; generation stops before the first match.
            max_tokens: the most tokens of a reply, from 1 up.
            presence_penalty: in [-2, 2]; positive values favour new topics.
            frequency_penalty: in [-2, 2]; positive values make repetition rarer.
            repetition_penalty: above 0; values above 1 make repetition rarer.
            tools: functions that the model may call: see `ToolDict`; objects with such fields do, too.
            tool_choice: `none`, `auto`, `required`, or a mapping that names a function.
            parallel_tool_calls: whether the model may ask for several calls at once.
            response_format: `{"type": "json_object"}`, or a JSON schema: see `ResponseFormatDict`.
            thinking: `{"type": "enabled"}`, `disabled` or `auto`, for models that reason.
            stream_options: `{"include_usage": True}` asks a stream for its usage.
            user: your own id of the end user.
            logprobs: whether to return log probabilities.
            top_logprobs: for how many candidates at each place, 0 to 20.
            logit_bias: token id to bias in [-100, 100].
            service_tier: the tier to be served by: `auto`, `default`, …
            repeatable: whether lost replies are retried. Default: on a prefix yes; a `Conversation` never does.
            serialize: whether to wait for other calls on the context. Default: no; a `Conversation` takes turns itself.
            extra_headers: further headers of this call.
            extra_body: further body fields, sent unchanged, in place of a parameter of the same name.
            timeouts: seconds for the whole call, or a `Timeouts`, whose named limits replace the session's.
            retry: the number of retries after the first attempt, or a `Retry`. Default: the session's.

        Raises:
            InvalidInputError: an argument is out of range; nothing was sent.
            OutcomeUnknownError: the question was sent and no answer came: a turn of a `Conversation` is in doubt.
            TurnInDoubtError: the outcome of the last turn of a `Conversation` is unknown; see `Conversation.resync`.
            ContextBusyError: this task itself holds a stream of this `Conversation` open.
            CtxCacheError: any other of the family, from creating the context or from the call.
        """
        extra_headers = hide(extra_headers)  # tracebacks may show local variables
        return await self._ask(question, given(locals()))

    @refusing(refuse_own_options)
    def stream(
        self,
        question: Question,
        *,
        temperature: float | Unset | None = None,
        top_p: float | Unset | None = None,
        n: int | Unset | None = None,
        stop: str | Iterable[str] | Unset | None = None,
        max_tokens: int | Unset | None = None,
        presence_penalty: float | Unset | None = None,
        frequency_penalty: float | Unset | None = None,
        repetition_penalty: float | Unset | None = None,
        tools: Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None = None,
        tool_choice: str | ToolChoiceDict | Mapping[str, Any] | Unset | None = None,
        parallel_tool_calls: bool | Unset | None = None,
        response_format: ResponseFormatDict | Mapping[str, Any] | Unset | None = None,
        thinking: ThinkingDict | Mapping[str, Any] | Unset | None = None,
        stream_options: StreamOptionsDict | Mapping[str, Any] | Unset | None = None,
        user: str | Unset | None = None,
        logprobs: bool | Unset | None = None,
        top_logprobs: int | Unset | None = None,
        logit_bias: Mapping[str, float] | Unset | None = None,
        service_tier: str | Unset | None = None,
        repeatable: bool | Unset | None = None,
        serialize: bool | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> ManagedStream:
        """Ask one question and stream the answer: `async with` the result, or iterate over the result directly.

        Nothing is sent before that. If the context turns out to be gone before the first chunk, the call is repeated
        on a new context; after the first chunk the error is raised. A turn of a `Conversation` is held until the stream
        ends, is closed or forgotten. The stream includes its usage, unless `stream_options` says otherwise.

        Args:
            question: as in `ask`.
            temperature: randomness, in [0, 2].
            top_p: the share of the probability mass to sample from, in [0, 1].
            n: how many replies, from 1 up; a `Conversation` goes on from 1.
            stop: a string, or up to 4; generation stops before the first match.
            max_tokens: the most tokens of a reply, from 1 up.
            presence_penalty: in [-2, 2]; positive values favour new topics.
            frequency_penalty: in [-2, 2]; positive values make repetition rarer.
            repetition_penalty: above 0; values above 1 make repetition rarer.
            tools: functions that the model may call: see `ToolDict`; objects with such fields do, too.
            tool_choice: `none`, `auto`, `required`, or a mapping that names a function.
            parallel_tool_calls: whether the model may ask for several calls at once.
            response_format: `{"type": "json_object"}`, or a JSON schema: see `ResponseFormatDict`.
            thinking: `{"type": "enabled"}`, `disabled` or `auto`, for models that reason.
            stream_options: `{"include_usage": True}` asks a stream for its usage.
            user: your own id of the end user.
            logprobs: whether to return log probabilities.
            top_logprobs: for how many candidates at each place, 0 to 20.
            logit_bias: token id to bias in [-100, 100].
            service_tier: the tier to be served by: `auto`, `default`, …
            repeatable: whether lost replies are retried. Default: on a prefix yes; a `Conversation` never does.
            serialize: whether to wait for other calls on the context. Default: no; a `Conversation` takes turns itself.
            extra_headers: further headers of this call.
            extra_body: further body fields, sent unchanged, in place of a parameter of the same name.
            timeouts: seconds for the whole call, or a `Timeouts`, whose named limits replace the session's.
            retry: the number of retries after the first attempt, or a `Retry`. Default: the session's.

        Raises:
            InvalidInputError: an argument is out of range. All other errors come from entering or iterating: those of
                `ask`, and those of a `ChatStream`.
        """
        extra_headers = hide(extra_headers)  # tracebacks may show local variables
        return self._stream(question, {**self._stream_defaults, **given(locals())})

    @abstractmethod
    async def _ask(self, question: Question, options: ChatParameters) -> ChatCompletion:
        """Ask one question, with the parameters that were given."""
        ...

    @abstractmethod
    def _stream(self, question: Question, options: ChatParameters) -> ManagedStream:
        """Stream the answer to one question, with the parameters that were given."""
        ...
