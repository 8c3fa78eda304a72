"""Pydantic AI over a cached context: `CtxCacheModel`, a model for `Agent`. Extra `pydantic-ai`.

Over a `Prefix` a request carries all messages of the run, which follow the prefix. Over a `Conversation` a request
carries the new turn alone: the service has the rest. So the history of a run must be the end of the conversation's own
messages, or empty; any other history is refused before anything is sent. Instructions and system prompts of an agent
would be stored again with each turn, and are refused as well: a conversation has its own beginning.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import (
    FinishReason,
    ModelMessage,
    ModelResponse,
    ModelResponsePart,
    ModelResponseStreamEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.profiles import ModelProfile, ModelProfileSpec
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import RunContext
from pydantic_ai.usage import RequestUsage

from ..errors import (
    APIConnectionError,
    APIStatusError,
    CtxCacheError,
    InvalidInputError,
    OutcomeUnknownError,
    StreamInterruptedError,
)
from ..managed import Conversation, ManagedStream, Prefix
from ..models import ChoiceDelta, Message, Usage
from ..tool_calls import ToolCallReader
from .pydantic_ai_requests import following, new_turn, options

__all__ = ["CtxCacheModel"]

_PROFILE: Final = ModelProfile(
    supports_json_schema_output=True,
    supports_json_object_output=True,
    supports_inline_system_prompts=True,
    supports_thinking=True,
)

_FINISH: Final[dict[str | None, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_call",
}


class CtxCacheModel(Model[Any]):
    """A model for `Agent`, whose requests go over a cached context: `Agent(CtxCacheModel(prefix))`.

    Tools, output tools, native and prompted output, streams, images and thinking work as with other models;
    `usage.cache_read_tokens` has the cached tokens. Settings: those of `ModelSettings`; `seed` and `top_k` go into the
    body unchanged; any other setting is refused.

    An error of the service is raised as a `ModelHTTPError` with its status, no answer as a `ModelAPIError`; the
    `__cause__` is the error of this package. Errors that leave a turn of a `Conversation` in doubt are raised as they
    are, so that nothing made for Pydantic AI's errors asks the question again.

    Args:
        context: the `Prefix` or `Conversation`. The agent's runs on a conversation take place one after the other.
        settings: defaults for all requests of the model.
        profile: what the model can do, where that differs.

    Raises:
        InvalidInputError: the context is neither.
    """

    def __init__(
        self,
        context: Prefix | Conversation,
        *,
        settings: ModelSettings | None = None,
        profile: ModelProfileSpec | None = None,
    ) -> None:
        if not isinstance(context, Prefix | Conversation):
            raise InvalidInputError.of("context", type(context), "a Prefix or a Conversation")
        self._context = context
        super().__init__(settings=settings, profile=_PROFILE if profile is None else profile)

    @property
    def model_name(self) -> str:
        """The model's id."""
        return self._context.model

    @property
    def system(self) -> str:
        """The name of the provider."""
        return "ctxcache"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask once, and return the whole answer.

        Raises:
            UserError: the messages or settings do not fit; nothing was sent.
            InvalidInputError: a setting is out of range; nothing was sent.
            ModelAPIError, CtxCacheError: the call failed; see the class.
        """
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        question, asked = self._question(messages, parameters), options(settings, parameters)
        with self._translated():
            answer = await self._context.ask(question, **asked)
        parts: list[ModelResponsePart] = []
        if answer.message.reasoning_content:
            parts.append(ThinkingPart(answer.message.reasoning_content))
        if answer.text:
            parts.append(TextPart(answer.text))
        parts += [ToolCallPart(call.function.name, call.function.arguments, call.id) for call in answer.tool_calls]
        return ModelResponse(
            parts=parts,
            usage=_usage(answer.usage),
            model_name=answer.model or self.model_name,
            provider_name=self.system,
            provider_response_id=answer.id or None,
            provider_details={"finish_reason": answer.finish_reason, "request_id": answer.request_id},
            finish_reason=_FINISH.get(answer.finish_reason),
        )

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask once, and stream the answer, which ends with an error if it does not come whole; errors as above."""
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        question, asked = self._question(messages, parameters), options(settings, parameters)
        stream = self._context.stream(question, **asked)
        with self._translated():
            await stream.open()
        async with stream:
            yield _Streamed(parameters, self, stream)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise this package's errors as Pydantic AI's."""
        try:
            yield
        except CtxCacheError as error:
            failure = error
        else:
            return
        if isinstance(self._context, Conversation) and isinstance(
            failure, OutcomeUnknownError | StreamInterruptedError
        ):
            raise failure
        if isinstance(failure, APIStatusError) and failure.status is not None:
            raise ModelHTTPError(failure.status, self.model_name, failure.body) from failure
        if isinstance(failure, APIStatusError | APIConnectionError | OutcomeUnknownError | StreamInterruptedError):
            raise ModelAPIError(self.model_name, str(failure)) from failure
        raise failure

    def _question(self, messages: list[ModelMessage], parameters: ModelRequestParameters) -> tuple[Message, ...]:
        """Return what is sent after the context: the messages of the run, or its last turn."""
        if isinstance(self._context, Prefix):
            return following(messages, parameters)
        return new_turn(messages, parameters, self._context.messages)


@dataclass
class _Streamed(StreamedResponse):
    """The events of a streamed answer."""

    _model: CtxCacheModel
    _stream: ManagedStream
    _timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        calls = ToolCallReader()
        with self._model._translated():
            async for chunk in self._stream:
                for choice in chunk.choices:
                    if choice.index == 0:
                        for event in self._events(choice.delta, calls):
                            yield event
        answer = self._stream.completion()
        self._usage = _usage(answer.usage)
        self.finish_reason = _FINISH.get(answer.finish_reason)
        self.provider_response_id = answer.id or None
        self.provider_details = {"finish_reason": answer.finish_reason, "request_id": answer.request_id}

    def _events(self, delta: ChoiceDelta, calls: ToolCallReader) -> Iterator[ModelResponseStreamEvent]:
        if delta.reasoning_content:
            yield from self._parts_manager.handle_thinking_delta(
                vendor_part_id="reasoning", content=delta.reasoning_content
            )
        if delta.content:
            yield from self._parts_manager.handle_text_delta(vendor_part_id="content", content=delta.content)
        for addition in calls.read(delta.tool_calls or ()):
            event = self._parts_manager.handle_tool_call_delta(
                vendor_part_id=addition.index,
                tool_name=addition.name or None,
                args=addition.arguments or None,
                tool_call_id=addition.id or None,
            )
            yield from filter(None, [event])

    async def close_stream(self) -> None:
        """Close the stream, which ends the call at the service."""
        await self._stream.aclose()

    @property
    def model_name(self) -> str:
        """The model's id."""
        return self._model.model_name

    @property
    def provider_name(self) -> str:
        """The name of the provider."""
        return self._model.system

    @property
    def provider_url(self) -> None:
        """Not told."""
        return None

    @property
    def timestamp(self) -> datetime:
        """When the stream was opened."""
        return self._timestamp


def _usage(usage: Usage | None) -> RequestUsage:
    if usage is None:
        return RequestUsage()
    details = {"reasoning_tokens": usage.reasoning_tokens} if usage.reasoning_tokens else {}
    return RequestUsage(
        input_tokens=usage.prompt_tokens,
        cache_read_tokens=usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        details=details,
    )
