"""One chat with a llama.cpp server, streamed: the request that is sent, the pieces and errors that come back."""

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, Final

from .... import codec
from ....errors import APIStatusError, ProtocolError
from ....models import ChatCompletionChunk, ChatRequest, Message
from ....models.plain import to_plain
from ....sse import SSEDecoder
from ....wire import read_events
from ...rules.pieces import Piece
from ...rules.refusals import bad_request, engine_failed, out_of_context
from ..protocol import Prompt
from .server import LlamaServer

__all__ = ["generate", "warm"]

_log: Final = logging.getLogger("ctxcache.gateway")
_PATH: Final = "/v1/chat/completions"
# Fields of a request that the service has and llama.cpp has not, or in another form.
_FOREIGN: Final = ("context_id", "n", "repetition_penalty", "service_tier", "thinking", "user")
# Fields that llama.cpp has beside OpenAI's, and that are not the client's to set.
_OURS: Final = ("cache_prompt", "id_slot", "max_completion_tokens", "n_cmpl", "n_predict", "prompt", "return_progress")


async def generate(server: LlamaServer, slot: int, prompt: Prompt) -> AsyncGenerator[Piece, None]:
    """Write a reply in a slot.

    Raises:
        ConnectionError: the server gave no answer, or only a part.
        APIStatusError: the server refused the request.
    """
    decoder, done = SSEDecoder(), False
    async with server.post(_PATH, codec.encode(_body(prompt, slot))) as (status, parts):
        if status != 200:
            raise _refusal(status, _json(b"".join([part async for part in parts])))
        async for data in parts:
            chunks: list[ChatCompletionChunk] = []
            try:
                done = read_events(decoder.feed_raw(data), chunks) or done
            except APIStatusError as error:
                raise _refusal(error.status or 500, error.body) from None
            except ProtocolError:
                _log.warning("llama.cpp sent what is no chunk")
                raise engine_failed() from None
            for piece in _pieces(chunks):
                yield piece
    if not done:
        raise ConnectionResetError


async def warm(server: LlamaServer, slot: int, messages: tuple[Message, ...]) -> None:
    """Compute the tokens of a context in a slot, as far as a chat on the context will need them.

    Raises:
        ConnectionError: the server gave no answer.
        APIStatusError: the context does not fit the slot.
    """
    # Templates want a question at the end; no more of it is kept than a chat has in common.
    question = () if messages[-1].role == "user" else (Message("user", "."),)
    body = codec.encode({"messages": messages + question, "id_slot": slot, "max_tokens": 1})
    async with server.post(_PATH, body) as (status, parts):
        answer = b"".join([part async for part in parts])
    if status != 200:
        raise _refusal(status, _json(answer))


def _body(prompt: Prompt, slot: int) -> dict[str, Any]:
    given = to_plain(prompt.request)
    fields = {
        name: value for name, value in given.items() if name not in _FOREIGN and name not in _OURS and value is not None
    }
    fields |= _translated(prompt.request)
    fields |= {"messages": prompt.messages, "id_slot": slot, "max_tokens": prompt.max_tokens}
    return {**fields, "stream": True, "stream_options": {"include_usage": True}}


def _translated(request: ChatRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.repetition_penalty:
        fields["repeat_penalty"] = request.repetition_penalty
    if isinstance(request.thinking, Mapping) and request.thinking.get("type") in ("enabled", "disabled"):
        fields["chat_template_kwargs"] = {"enable_thinking": request.thinking["type"] == "enabled"}
    return fields


def _pieces(chunks: Iterable[ChatCompletionChunk]) -> Iterable[Piece]:
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta
            yield Piece(
                text=delta.content or "",
                reasoning=delta.reasoning_content or "",
                tool_calls=[to_plain(call) for call in delta.tool_calls or ()],
                logprobs=choice.logprobs,
                finish_reason=choice.finish_reason,
            )
        if chunk.usage is not None:
            yield Piece(usage=chunk.usage)


def _json(body: bytes) -> Any:
    try:
        return codec.decode_json(body)
    except ProtocolError:
        return None


def _refusal(status: int, answer: Any) -> APIStatusError:
    """Return the error of a refused request in the service's words."""
    details = answer.get("error") if isinstance(answer, Mapping) else None
    if status == 400 and isinstance(details, Mapping):
        if details.get("type") == "exceed_context_size_error":
            return out_of_context(details.get("n_prompt_tokens", 0), details.get("n_ctx", 0))
        return bad_request("", str(details.get("message", "")))
    _log.warning("llama.cpp refused a chat: status %d, %s", status, answer)
    return engine_failed()
