"""Bytes in memory to events, and to chunks, by each client's own code and on its shortest way.

Events: whatever the decoder makes of an event, with its `data`. Chunks: the client's typed chunk; of httpx-sse, which
has none, the parsed JSON.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

from .clients import KEY, OURS

HTTPX_SSE: Final = "httpx-sse"
DONE: Final = "[DONE]"
Decoder = Callable[[Sequence[bytes]], Iterator[Any]]


def ctxcache_events(parts: Iterable[bytes]) -> Iterator[Any]:
    from ctxcache.sse import SSEDecoder

    decoder = SSEDecoder()
    for part in parts:
        yield from decoder.feed(part)


def ctxcache_chunks(parts: Iterable[bytes]) -> Iterator[Any]:
    """Do what `ChatStream` does with each read."""
    from ctxcache import ChatCompletionChunk, wire
    from ctxcache.sse import SSEDecoder

    decoder = SSEDecoder()
    for part in parts:
        chunks: list[ChatCompletionChunk] = []
        ended = wire.read_events(decoder.feed_raw(part), chunks)
        yield from chunks
        if ended:
            return


def httpx_sse_events(parts: Iterable[bytes]) -> Iterator[Any]:
    """Do what `EventSource.iter_sse` does, but for the `httpx.Response` around it, which would make it slower."""
    from httpx_sse._decoders import SSEDecoder, SSELineDecoder

    to_text = codecs.getincrementaldecoder("utf-8")("replace").decode
    lines, decoder = SSELineDecoder(), SSEDecoder()
    for part in parts:
        if text := to_text(part):  # httpx passes no empty text on, and its line decoder counts on that
            for line in lines.decode(text):
                event = decoder.decode(line)
                if event is not None:
                    yield event
    for line in lines.flush():
        event = decoder.decode(line)
        if event is not None:
            yield event


def httpx_sse_chunks(parts: Iterable[bytes]) -> Iterator[Any]:
    for event in httpx_sse_events(parts):
        if event.data == DONE:
            return
        yield json.loads(event.data)


@cache
def _openai_client() -> Any:
    from openai import OpenAI

    return OpenAI(api_key=KEY)


@cache
def _ark_client() -> Any:
    from volcenginesdkarkruntime import Ark  # type: ignore[import-untyped]

    return Ark(api_key=KEY)


def openai_chunks(parts: Sequence[bytes]) -> Iterator[Any]:
    import httpx2
    from openai import Stream
    from openai.types.chat import ChatCompletionChunk

    response = httpx2.Response(200, content=iter(parts), request=httpx2.Request("POST", "http://localhost"))
    return iter(Stream(cast_to=ChatCompletionChunk, response=response, client=_openai_client()))


def ark_chunks(parts: Sequence[bytes]) -> Iterator[Any]:
    import httpx
    from volcenginesdkarkruntime._streaming import Stream  # type: ignore[import-untyped]
    from volcenginesdkarkruntime.types.context import ContextChatCompletionChunk  # type: ignore[import-untyped]

    response = httpx.Response(200, content=iter(parts), request=httpx.Request("POST", "http://localhost"))
    return iter(Stream(cast_to=ContextChatCompletionChunk, response=response, client=_ark_client()))


DECODERS: Final[dict[str, dict[str, Decoder]]] = {
    "events": {OURS: ctxcache_events, HTTPX_SSE: httpx_sse_events},
    "chunks": {OURS: ctxcache_chunks, HTTPX_SSE: httpx_sse_chunks, "openai": openai_chunks, "ark": ark_chunks},
}


def essence(result: Any) -> Any:
    """What must be equal of an event (its data) and of a chunk (id, text and finish reason of choice 0, tokens)."""
    if hasattr(result, "data"):
        return result.data
    chunk = _Path(result)
    choice = chunk["choices"][0]
    return tuple(
        found.value
        for found in (chunk["id"], choice["delta"]["content"], choice["finish_reason"], chunk["usage"]["total_tokens"])
    )


class _Path:
    """A way into dicts and models alike; None where it ends."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __getitem__(self, key: str | int) -> "_Path":
        value = self.value
        if isinstance(key, int):
            return _Path(value[key] if value and len(value) > key else None)
        return _Path(value.get(key) if isinstance(value, dict) else getattr(value, key, None))


def expected(output: str, data: Sequence[str]) -> list[Any]:
    """The essence of what a decoder must return for events with that data."""
    if output == "events":
        return list(data)
    return [essence(json.loads(one)) for one in data if one != DONE]
