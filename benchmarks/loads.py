"""The bytes of the load. A load is named by the `model` of a request, so that any client can ask for any of them.

`whole-CHUNKS-TEXT`   a stream of CHUNKS chunks with TEXT bytes of text each, written at once
`paced-RATE-CHUNKS`   the same, each chunk its own write, RATE of them a second, each with the time of its sending
`gated-RATE-CHUNKS`   the same, but only the head until the server is told to go: all streams then begin together
`hold-CHUNKS`         CHUNKS chunks at once, then nothing until the client goes away
`plain-TEXT`          a plain answer with TEXT bytes of text
`late-MS-TEXT`        the same, after MS milliseconds

Every event is a chunk of HTTP's chunked encoding, as it is behind the real service. Of the CHUNKS the last two are the
one with the finish reason and the one with the usage; `[DONE]` comes after them.
"""

import json
from functools import cache
from typing import Any, Final

TEXT: Final = 24  # bytes of text in a chunk of about 290 bytes, like the service's
ENDLESS: Final = 1_000_000_000
MODEL: Final = "Doubao-1.5-pro-32k"
CREATED: Final = 1_700_000_000_000_000  # 16 digits: where a paced chunk carries the µs of its sending
ID: Final = "0217419823056789abcdef0123456789abcdef0123456789abc"
USAGE: Final = {
    "prompt_tokens": 2048,
    "completion_tokens": 512,
    "total_tokens": 2560,
    "prompt_tokens_details": {"cached_tokens": 1984},
}


def whole(chunks: int = 2000, text: int = TEXT) -> str:
    """Name the stream that is written at once."""
    return f"whole-{chunks}-{text}"


def paced(rate: float, chunks: int = ENDLESS) -> str:
    """Name the stream of `rate` chunks a second."""
    return f"paced-{rate:g}-{chunks}"


def gated(rate: float, chunks: int) -> str:
    """Name the stream of `rate` chunks a second that waits until all are open."""
    return f"gated-{rate:g}-{chunks}"


def hold(chunks: int = 2) -> str:
    """Name the stream that stays open."""
    return f"hold-{chunks}"


WARM: Final = whole(5)  # what is asked for before anything is measured


def plain(text: int = 400) -> str:
    """Name the plain answer."""
    return f"plain-{text}"


def late(milliseconds: int, text: int = 400) -> str:
    """Name the plain answer of a model that thinks."""
    return f"late-{milliseconds}-{text}"


def words(length: int) -> str:
    """Text of that many bytes."""
    return (" caching keeps the prompt" * (length // 25 + 1))[:length]


def chunk(delta: dict[str, Any], finish: str | None = None, created: int = CREATED, **fields: Any) -> dict[str, Any]:
    """One `chat.completion.chunk`."""
    choices = [{"delta": delta, "finish_reason": finish, "index": 0, "logprobs": None}]
    return {
        "choices": choices,
        "created": created,
        "id": ID,
        "model": MODEL,
        "object": "chat.completion.chunk",
        "usage": None,
        **fields,
    }


def data(payload: object) -> bytes:
    """Encode as the data of an event: compact JSON, text as it is."""
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode()


def event(payload: object) -> bytes:
    """One server-sent event."""
    return b"data: " + data(payload) + b"\n\n"


def text_chunk(text: int = TEXT) -> dict[str, Any]:
    """A chunk with that many bytes of text."""
    return chunk({"content": words(text), "role": "assistant"})


def last_chunks() -> list[dict[str, Any]]:
    """The chunk with the finish reason and the one with the usage."""
    return [chunk({"content": "", "role": "assistant"}, "stop"), chunk({}, choices=[], usage=USAGE)]


def framed(body: bytes) -> bytes:
    """One chunk of HTTP's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(body), body)


STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n"
    b"X-Request-Id: 02174198230567890\r\nX-Tt-Logid: 20250314\r\nCache-Control: no-cache\r\n\r\n"
)


@cache
def stream_end() -> bytes:
    """The end of a stream: finish reason, usage, `[DONE]`, and the end of the body."""
    return b"".join(framed(event(last)) for last in last_chunks()) + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@cache
def stream_text(text: int = TEXT) -> bytes:
    """One chunk with text, framed."""
    return framed(event(text_chunk(text)))


@cache
def paced_template() -> tuple[bytes, bytes]:
    """What stands before and after the 16 digits of the time in a framed chunk."""
    before, _, after = stream_text().partition(b"%d" % CREATED)
    return before, after


@cache
def whole_answer(chunks: int, text: int) -> bytes:
    """The bytes of a `whole` answer, head and all."""
    return STREAM_HEAD + stream_text(text) * (chunks - 2) + stream_end()


@cache
def plain_answer(text: int) -> bytes:
    """The bytes of a `plain` answer, head and all."""
    message = {"content": words(text), "role": "assistant"}
    body = data(
        {
            "choices": [{"finish_reason": "stop", "index": 0, "logprobs": None, "message": message}],
            "created": CREATED,
            "id": ID,
            "model": MODEL,
            "service_tier": "default",
            "object": "chat.completion",
            "usage": USAGE,
        }
    )
    return answer(body)


def context(number: int) -> bytes:
    """The answer of a create, with an id of its own."""
    return data({"id": f"ctx-20241211104333-{number:05}", "ttl": 86400, "usage": USAGE})


def models() -> bytes:
    """The list of models, which names none: every load is one."""
    return data({"object": "list", "data": []})


def answer(body: bytes, status: str = "200 OK") -> bytes:
    """A plain HTTP answer with a JSON body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}X-Request-Id: 02174198230567890\r\n\r\n".encode() + body
