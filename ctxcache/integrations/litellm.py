"""LiteLLM over cached contexts: `CtxCacheLLM`, a custom provider. Extra `litellm`.

::

    litellm.custom_provider_map = [{"provider": "ctxcache", "custom_handler": CtxCacheLLM({"manual": prefix})}]
    await litellm.acompletion(model="ctxcache/manual", messages=[...])

Over a `Prefix` all messages of the call follow the prefix. Over a `Conversation` the new turn alone is sent, for which
see `history`.

LiteLLM repeats calls of its own accord: with `num_retries` after any error, in a `Router` by the status. Over a prefix
a repeat is harmless. A turn of a conversation that may have run is told as a `BadRequestError`, which no router
repeats; a repeat under the same call id gets that error again, and nothing is sent.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final

import httpx
from litellm import exceptions
from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import (
    Choices,
    CompletionTokensDetailsWrapper,
    Delta,
    ModelResponse,
    ModelResponseStream,
    PromptTokensDetailsWrapper,
    StreamingChoices,
)
from litellm.types.utils import Message as LiteLLMMessage
from litellm.types.utils import Usage as LiteLLMUsage

from ..client.resources.parameters import ChatParameters
from ..errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    CtxCacheError,
    InvalidInputError,
    OutcomeUnknownError,
    SessionError,
    StreamInterruptedError,
)
from ..managed import Conversation, Prefix
from ..models import ChatCompletion, ChatCompletionChunk, Message, Usage, read_messages
from ..tool_calls import ToolCallReader
from .history import new_turn
from .sync import BackgroundLoop, LoopGate

__all__ = ["CtxCacheLLM"]

_PROVIDER: Final = "ctxcache"
_REMEMBERED: Final = 1000  # calls that are not to be repeated
_ELSEWHERE: Final = frozenset({"stream", "max_retries"})  # chosen by the method; the session's `Retry` counts
_RENAMED: Final = {"max_completion_tokens": "max_tokens"}

_KINDS: Final = {
    400: exceptions.BadRequestError,
    401: exceptions.AuthenticationError,
    403: exceptions.PermissionDeniedError,
    404: exceptions.NotFoundError,
    429: exceptions.RateLimitError,
    503: exceptions.ServiceUnavailableError,
}


class CtxCacheLLM(CustomLLM):
    """A custom provider of LiteLLM, whose models are cached contexts.

    `completion`, `acompletion` and their streams, tool calls, finish reasons and usage
    (`usage.prompt_tokens_details.cached_tokens`) work as with other providers. Calls run in the event loop of the
    context's session: that of the first call. If the first call blocks, that is a loop in a thread of its own, where
    `close` closes the session, too.

    The key is the session's: `api_key` and `api_base` of a call are not looked at, so LiteLLM has no key to log.

    Args:
        contexts: a `Prefix` or `Conversation` for each name: `ctxcache/NAME` is the model to call.

    Raises:
        InvalidInputError: a value is neither.
    """

    def __init__(self, contexts: Mapping[str, Prefix | Conversation]) -> None:
        super().__init__()
        for name, context in contexts.items():
            if not isinstance(context, Prefix | Conversation):
                raise InvalidInputError.of(f"contexts[{name!r}]", type(context), "a Prefix or a Conversation")
        self._contexts = dict(contexts)
        self._background = BackgroundLoop(_closing(self._contexts))
        self._in_doubt: OrderedDict[str, None] = OrderedDict()  # ids of calls whose outcome is unknown

    def close(self) -> None:
        """End the thread of blocking calls, and close the sessions that live there."""
        self._background.close()

    # --- LiteLLM's four ways to call

    def completion(self, *args: Any, **call: Any) -> ModelResponse:  # type: ignore[override]
        """Ask, and block until the whole answer is there."""
        context = self._context(call)
        with self._translated(context, call):
            question, options = _question(context, call), _options(call, stream=False)
            return _whole(self._gate(context, blocking=True).run(_ask(context, question, options)), call)

    async def acompletion(self, *args: Any, **call: Any) -> ModelResponse:  # type: ignore[override]
        """Ask, and await the whole answer."""
        context = self._context(call)
        with self._translated(context, call):
            question, options = _question(context, call), _options(call, stream=False)
            return _whole(await self._gate(context, blocking=False).arun(_ask(context, question, options)), call)

    def streaming(self, *args: Any, **call: Any) -> Iterator[Any]:  # type: ignore[override]
        """Yield the answer in pieces, blocking between them."""
        context = self._context(call)
        with self._translated(context, call):
            question, options = _question(context, call), _options(call, stream=True)
            yield from self._gate(context, blocking=True).iterate(lambda: _pieces(context, question, options))

    async def astreaming(self, *args: Any, **call: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """Yield the answer in pieces."""
        context = self._context(call)
        with self._translated(context, call):
            question, options = _question(context, call), _options(call, stream=True)
            gate = self._gate(context, blocking=False)
            items: Any = gate.aiterate(lambda: _pieces(context, question, options))
            async with aclosing(items) as pieces:
                async for piece in pieces:
                    yield piece

    # --- what they share

    def _context(self, call: Mapping[str, Any]) -> Prefix | Conversation:
        name = call["model"]
        if name in self._contexts:
            return self._contexts[name]
        message = f"model must be one of {', '.join(f'{_PROVIDER}/{known}' for known in self._contexts)}, got {name}"
        raise exceptions.NotFoundError(message=message, model=name, llm_provider=_PROVIDER)

    def _gate(self, context: Prefix | Conversation, *, blocking: bool) -> LoopGate:
        """Return the way into the event loop of the context's session."""
        loop = context.session.loop or (None if blocking else asyncio.get_running_loop())
        if loop is None or self._background.is_loop(loop):
            return self._background
        if not loop.is_running():
            raise SessionError("the event loop to which the session belongs does not run any more")
        return LoopGate(loop)

    @contextmanager
    def _translated(self, context: Prefix | Conversation, call: Mapping[str, Any]) -> Iterator[None]:
        """Raise this package's errors as LiteLLM's, and repeat no call whose outcome is unknown."""
        id_, failure = str(call["logging_obj"].litellm_call_id), None
        if id_ in self._in_doubt:
            raise _error(400, "the outcome of this call's first attempt is unknown: it is not repeated", call)
        try:
            yield
        except CtxCacheError as error:
            failure = error
        if failure is None:
            return
        doubtful = isinstance(failure, OutcomeUnknownError | StreamInterruptedError)
        if doubtful and isinstance(context, Conversation):
            self._in_doubt[id_] = None
            while len(self._in_doubt) > _REMEMBERED:
                self._in_doubt.popitem(last=False)
            raise _error(400, f"the outcome of the turn is unknown: {failure}", call) from failure
        raise _as_litellm(failure, call) from failure


def _closing(contexts: Mapping[str, Prefix | Conversation]) -> Callable[[], Awaitable[None]]:
    async def close() -> None:
        for context in contexts.values():
            if context.session.loop is asyncio.get_running_loop():
                await context.session.aclose()

    return close


# --- what is asked


def _question(context: Prefix | Conversation, call: Mapping[str, Any]) -> tuple[Message, ...]:
    messages = tuple(map(_unmarked, read_messages(call["messages"])))
    return messages if isinstance(context, Prefix) else new_turn(messages, context.messages)


def _unmarked(message: Message) -> Message:
    """Return a message without marks for caches, since the context is the cache, and without fields that are None."""
    extra = {name: value for name, value in message.extra.items() if name != "cache_control" and value is not None}
    content: Any = message.content
    if isinstance(content, tuple):
        content = [{name: value for name, value in part.items() if name != "cache_control"} for part in content]
    return Message(message.role, content, extra)


def _options(call: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
    """Return LiteLLM's parameters as those of `ask`; parameters without a name here go into the body as they are."""
    options: dict[str, Any] = {}
    body: dict[str, Any] = {}
    for name, value in call["optional_params"].items():
        known = _RENAMED.get(name, name)
        if name == "extra_body":
            body |= value or {}
        elif known in ChatParameters.__annotations__:
            options[known] = value
        elif name not in _ELSEWHERE:
            body[name] = value
    if not stream:
        options.pop("stream_options", None)
    elif options.get("n", 1) != 1:
        raise InvalidInputError.of("n", options["n"], "1 in a stream")
    if body:
        options["extra_body"] = body
    if call.get("headers"):
        options["extra_headers"] = dict(call["headers"])
    timeout = call.get("timeout")
    if isinstance(timeout, int | float) and timeout != (call.get("litellm_params") or {}).get("force_timeout"):
        options["timeouts"] = float(timeout)  # the caller's own, not LiteLLM's default
    return options


async def _ask(
    context: Prefix | Conversation, question: tuple[Message, ...], options: dict[str, Any]
) -> ChatCompletion:
    return await context.ask(question, **options)


# --- what is answered


def _whole(answer: ChatCompletion, call: Mapping[str, Any]) -> ModelResponse:
    response: ModelResponse = call["model_response"]
    response.id = answer.id or response.id
    response.created = answer.created or response.created
    response.model = answer.model
    response.choices = [
        Choices(
            index=choice.index,
            finish_reason=choice.finish_reason,
            message=LiteLLMMessage(
                content=choice.message.content,
                role="assistant",
                tool_calls=[
                    {
                        "id": asked.id,
                        "type": "function",
                        "function": {"name": asked.function.name, "arguments": asked.function.arguments},
                    }
                    for asked in choice.message.tool_calls or ()
                ]
                or None,
                reasoning_content=choice.message.reasoning_content,
            ),
        )
        for choice in answer.choices
    ]
    response.usage = _usage(answer.usage)  # type: ignore[attr-defined]
    return response


async def _pieces(
    context: Prefix | Conversation, question: tuple[Message, ...], options: dict[str, Any]
) -> AsyncGenerator[Any, None]:
    """Yield the pieces of a streamed answer; the last one, which says that it ended, only if it came whole."""
    calls = ToolCallReader()
    async with context.stream(question, **options) as stream:
        async for chunk in stream:
            if (delta := _delta(chunk, calls)) is not None:
                yield ModelResponseStream(id=chunk.id or None, choices=[StreamingChoices(index=0, delta=delta)])
        answer = stream.completion()
    usage = None if answer.usage is None else _usage(answer.usage).model_dump()
    yield {"text": "", "is_finished": True, "finish_reason": answer.finish_reason or "stop", "usage": usage, "index": 0}


def _delta(chunk: ChatCompletionChunk, calls: ToolCallReader) -> Delta | None:
    """Return choice 0's additions, or None for none."""
    for choice in chunk.choices:
        additions = calls.read(choice.delta.tool_calls or ())
        if choice.index == 0 and (choice.delta.content or choice.delta.reasoning_content or additions):
            return Delta(
                role="assistant",
                content=choice.delta.content,
                reasoning_content=choice.delta.reasoning_content,
                tool_calls=[
                    {
                        "index": addition.index,
                        "id": addition.id or None,
                        "type": "function",
                        "function": {"name": addition.name or None, "arguments": addition.arguments},
                    }
                    for addition in additions
                ]
                or None,
            )
    return None


def _usage(usage: Usage | None) -> LiteLLMUsage:
    usage = usage or Usage()
    return LiteLLMUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptTokensDetailsWrapper(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetailsWrapper(reasoning_tokens=usage.reasoning_tokens),
    )


# --- errors


def _as_litellm(error: CtxCacheError, call: Mapping[str, Any]) -> Exception:
    if isinstance(error, APITimeoutError):
        return exceptions.Timeout(message=str(error), model=call["model"], llm_provider=_PROVIDER)
    if isinstance(error, APIStatusError) and error.status is not None:
        return _error(error.status, str(error), call, retry_after=error.retry_after)
    if isinstance(error, APIConnectionError | OutcomeUnknownError | StreamInterruptedError):
        return exceptions.APIConnectionError(message=str(error), llm_provider=_PROVIDER, model=call["model"])
    return _error(400, str(error), call)  # an argument, or the state of the conversation


def _error(status: int, message: str, call: Mapping[str, Any], *, retry_after: float | None = None) -> Exception:
    """Return LiteLLM's error of a status; routers wait for `Retry-After`."""
    kind: Any = _KINDS.get(status, exceptions.BadRequestError if status < 500 else exceptions.InternalServerError)
    headers = {} if retry_after is None else {"retry-after": f"{retry_after:g}"}
    request = httpx.Request("POST", "http://ctxcache/context/chat/completions")  # of no consequence
    response = httpx.Response(status, headers=headers, request=request)
    error: Exception = kind(message=message, llm_provider=_PROVIDER, model=call["model"], response=response)
    return error
