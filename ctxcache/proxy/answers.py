"""The service's answers in OpenAI's shape. Pure.

An answer that has every field OpenAI's has, and the model as asked, goes on as the bytes received. Where a service
leaves a field out, or names the model in its own way, the JSON is completed. The usage of a stream goes on only to a
client that asked for one.
"""

from typing import Any, Final

from .. import codec
from ..errors import APIStatusError, APITimeoutError, CtxCacheError, SessionError
from ..models import ChatCompletion, ChatCompletionChunk
from ..sse import encode_data

__all__ = ["DONE", "Chunks", "completion", "envelope", "error_event", "status"]

DONE: Final = b"data: [DONE]\n\n"
_CHUNK: Final = "chat.completion.chunk"
_CHUNK_JSON: Final = b'"chat.completion.chunk"'
_COMPLETION: Final = "chat.completion"


def completion(answer: ChatCompletion, model: str, answer_id: str, now: int) -> bytes:
    """Return a plain answer.

    Args:
        answer: as received.
        model: as asked.
        answer_id: for an answer without an id.
        now: for an answer without `created`, Unix seconds.
    """
    raw = answer.to_dict()
    needed = {"id": answer_id, "object": _COMPLETION, "created": now}
    if answer.raw_json and _complete(raw, needed, model):
        return answer.raw_json
    return codec.encode(_completed(raw, needed, model))


class Chunks:
    """Encodes the chunks of a stream as events.

    Args:
        model: as asked.
        answer_id: for a stream without an id.
        now: for a stream without `created`, Unix seconds.
        usage: whether the client asked for the usage.
    """

    def __init__(self, model: str, answer_id: str, now: int, *, usage: bool) -> None:
        self._model: Final = model
        self._needed = {"id": answer_id, "object": _CHUNK, "created": now}
        self._usage: Final = usage
        self._begun = False

    def encode(self, chunks: list[ChatCompletionChunk]) -> bytes:
        """Return chunks that came together."""
        if not self._begun:
            self._begun = True
            sent = {"id": chunks[0].id, "created": chunks[0].created}  # the same for all chunks
            self._needed.update({name: value for name, value in sent.items() if value})
        return b"".join([encode_data(data) for chunk in chunks if (data := self._data(chunk))])

    def _data(self, chunk: ChatCompletionChunk) -> bytes:
        hidden = chunk.usage is not None and not self._usage
        if hidden and not chunk.choices:
            return b""
        if not hidden and self._is_complete(chunk):
            return chunk.raw_json
        raw = _completed(chunk.to_dict(), self._needed, self._model)
        if hidden:
            raw.pop("usage", None)
        return codec.encode(raw)

    def _is_complete(self, chunk: ChatCompletionChunk) -> bool:
        named = chunk.id and chunk.created and chunk.model == self._model
        # A missing `object` reads as the usual one, which then is nowhere in the JSON.
        return bool(named and chunk.object and (chunk.object != _CHUNK or _CHUNK_JSON in chunk.raw_json))


def _complete(raw: dict[str, Any], needed: dict[str, Any], model: str) -> bool:
    return raw.get("model") == model and all(raw.get(name) for name in needed)


def _completed(raw: dict[str, Any], needed: dict[str, Any], model: str) -> dict[str, Any]:
    given = {name: value for name, value in raw.items() if value or name not in needed}
    return {**needed, **given, "model": model}


# --- errors -----------------------------------------------------------------------------------------------------------


def status(error: CtxCacheError) -> int:
    """Return the HTTP status for an error: the service's own, 504 for a time limit, 502 for no trustworthy answer."""
    if isinstance(error, APIStatusError) and error.status is not None and error.status >= 400:
        return error.status
    if isinstance(error, SessionError):  # the proxy stops
        return 503
    return 504 if isinstance(error, APITimeoutError) else 502


def envelope(error: CtxCacheError) -> bytes:
    """Return the JSON of an error, with the service's code, type and parameter."""
    fields = {
        "message": _message(error),
        "type": getattr(error, "type", "") or type(error).__name__,
        "param": getattr(error, "param", "") or None,
        "code": getattr(error, "code", "") or None,
    }
    return codec.encode({"error": fields})


def _message(error: CtxCacheError) -> str:
    """Return the service's own words, where there are any."""
    body = getattr(error, "body", None)
    inner = body.get("error") if isinstance(body, dict) else None
    told = inner.get("message") if isinstance(inner, dict) else None
    return told if isinstance(told, str) and told else str(error)


def error_event(error: CtxCacheError) -> bytes:
    """Return the last event of a stream that broke: OpenAI's clients raise for data with `error`."""
    return encode_data(envelope(error))
