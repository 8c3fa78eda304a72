"""Answers that are cut, garbled, or lack their usage: bytes in, bytes out. Pure."""

from typing import Any, Final

from ... import codec
from ..rules.answers import DONE

__all__ = ["GARBAGE", "change_usage", "change_usage_of_event", "events", "garble", "half", "half_an_answer"]

GARBAGE: Final = b'data: {"id":"chatcmpl-\xff\xfe","choices":[{"delta":{"con\n\n'
_DATA: Final = b"data: "


def events(data: bytes) -> list[bytes]:
    """Split the bytes of whole events into the single events."""
    return [event + b"\n\n" for event in data.split(b"\n\n")[:-1]]


def half(body: bytes) -> bytes:
    """Return the first half of a body."""
    return body[: len(body) // 2]


def garble(body: bytes) -> bytes:
    """Return a body that is neither JSON nor UTF-8, whether the middle is in a string or not."""
    middle = len(body) // 2
    return body[:middle] + b'\xff"\x00{' + body[middle + 4 :]


def half_an_answer(text: str) -> bytes:
    """Return the beginning of a plain answer, up to the middle of the text."""
    return b'{"choices":[{"index":0,"message":{"role":"assistant","content":' + half(codec.encode(text))


def change_usage(body: bytes, *, keep: bool) -> bytes:
    """Return a JSON answer with 0 cached tokens, or (`keep` false) without the usage."""
    answer = codec.decode_object(body)
    if not keep:
        answer.pop("usage", None)
    elif answer.get("usage"):
        _evict(answer["usage"])
    return codec.encode(answer)


def change_usage_of_event(event: bytes, *, keep: bool) -> bytes | None:
    """Do the same for an event of a stream; None: the event falls away, since it carries nothing but the usage."""
    if event == DONE or b'"usage"' not in event:
        return event
    chunk = codec.decode_object(event.removeprefix(_DATA))
    if not keep and chunk.get("usage") and not chunk.get("choices"):
        return None
    return _DATA + change_usage(event.removeprefix(_DATA), keep=keep) + b"\n\n"


def _evict(usage: dict[str, Any]) -> None:
    if "prompt_tokens_details" in usage:
        usage["prompt_tokens_details"] = {"cached_tokens": 0}
