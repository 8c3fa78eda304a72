"""The named inputs of the decode scenario: bytes cut as reads would cut them, and the data of the events they claim.

Each ends with `[DONE]`. No event has an id, a type or a retry, so that decoders which differ there must agree here.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import loads

KIB: Final = 1024
READ: Final = 64 * KIB
SEGMENT: Final = 1460  # what one TCP segment of an Ethernet carries
_SYLLABLES: Final = ("上下文", "缓存", " cache", "d ", "è", "🧊", "\u2028", "naïve ", "—")


@dataclass(frozen=True)
class Workload:
    """An input.

    Attributes:
        about: what it is like, in a few words.
        parts: the bytes, one piece a read.
        data: the data of the events, in order, `[DONE]` included.
    """

    name: str
    about: str
    parts: tuple[bytes, ...]
    data: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """How many bytes in all."""
        return sum(map(len, self.parts))


def cut(stream: bytes, size: int) -> tuple[bytes, ...]:
    """Cut into reads of that size."""
    return tuple(stream[at : at + size] for at in range(0, len(stream), size))


def tokens(count: int, words: Sequence[str] = (" context", " cach", "ing", " is", ",")) -> list[str]:
    """The data of a stream of `count` chunks and `[DONE]`."""
    texts = (words[number % len(words)] for number in range(count - 2))
    chunks = [*(loads.chunk({"content": text, "role": "assistant"}) for text in texts), *loads.last_chunks()]
    return [*(loads.data(chunk).decode() for chunk in chunks), "[DONE]"]


def lines(data: str, end: str = "\n") -> str:
    """One event; each line of its data is a line of its own."""
    return "".join(f"data: {line}{end}" for line in data.split("\n")) + end


def _workload(name: str, about: str, data: list[str], read: int, form: Callable[[str], str] = lines) -> Workload:
    return Workload(name, about, cut("".join(map(form, data)).encode(), read), tuple(data))


def long_line(size: int) -> list[str]:
    """One chunk whose JSON is about `size` bytes in one line, and `[DONE]`."""
    return [loads.data(loads.chunk({"content": loads.words(size)}, "stop")).decode(), "[DONE]"]


def many_lines(count: int) -> str:
    """The data of one chunk in exactly `count` lines: JSON may have line ends between its tokens."""
    chunk: dict[str, Any] = loads.chunk({"content": "caching"}, "stop")
    bare = json.dumps(chunk, indent=1).count("\n") + 1
    chunk["lines"] = list(range(count - bare - 2))
    return json.dumps(chunk, indent=1)


def token_stream(chunks: int = 5000) -> Workload:
    return _workload("token stream", "chunks of about 290 bytes, reads of 64 KiB", tokens(chunks), READ)


def tiny_reads(chunks: int = 500) -> Workload:
    return _workload("tiny reads", "the same, reads of 7 bytes", tokens(chunks), 7)


def heartbeats(chunks: int = 5000) -> Workload:
    about = "the same, two comments before each chunk, reads of 64 KiB"
    return _workload("heartbeats", about, tokens(chunks), READ, lambda data: f": keep-alive\n\n:\n\n{lines(data)}")


def crlf(chunks: int = 5000) -> Workload:
    about = "the same, lines that end with CRLF, reads of 64 KiB"
    return _workload("CRLF", about, tokens(chunks), READ, lambda data: lines(data, "\r\n"))


def multi_byte(chunks: int = 5000) -> Workload:
    about = "Chinese, accents, emoji and U+2028, reads of 1,000 bytes that cut characters"
    return _workload("multi-byte text", about, tokens(chunks, _SYLLABLES), 1000)


def dripped_line(size: int = KIB * KIB) -> Workload:
    return _workload("1 MiB line dripped in", "one event of one line, reads of 1,460 bytes", long_line(size), SEGMENT)


def data_of_many_lines(events: int = 20, count: int = 1000) -> Workload:
    about = "events of 1,000 data lines each, reads of 64 KiB"
    return _workload("1,000-line data", about, [many_lines(count)] * events + ["[DONE]"], READ)


WORKLOADS: Final[dict[str, Callable[..., Workload]]] = {
    "token stream": token_stream,
    "tiny reads": tiny_reads,
    "heartbeats": heartbeats,
    "CRLF": crlf,
    "multi-byte text": multi_byte,
    "1 MiB line dripped in": dripped_line,
    "1,000-line data": data_of_many_lines,
}
