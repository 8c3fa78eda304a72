"""A second decoder, written from the standard's own sentences, and ways to run the first one over streams in pieces."""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st

from ctxcache.errors import EventTooLargeError
from ctxcache.sse import ServerSentEvent, SSEDecoder

MIB = 1024 * 1024
BOM = b"\xef\xbb\xbf"
slow_machines_are_fine = settings(deadline=None, max_examples=400)
cuts = st.lists(st.integers(0, 200), max_size=20)


event = ServerSentEvent  # the tables are long


# --- running a decoder -------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """Everything a caller can see of a decoder at the end of its input."""

    events: list[ServerSentEvent]
    error: str | None
    last_event_id: str
    retry: int | None
    buffered: int
    leftover: bytes


def run(parts: Iterable[bytes], limit: int = MIB) -> Outcome:
    """Feed the parts, as reads would, up to the end of the input."""
    decoder = SSEDecoder(limit)
    events: list[ServerSentEvent] = []
    error = None
    try:
        for part in parts:
            events += decoder.feed(part)
            assert 0 <= decoder.buffered <= limit
        events += decoder.feed(b"")  # the error held back behind events, if there is one
    except EventTooLargeError as e:
        error = str(e)
    leftover = b"" if error else decoder.leftover()
    return Outcome(events, error, decoder.last_event_id, decoder.retry, decoder.buffered, leftover)


def byte_by_byte(data: bytes) -> list[bytes]:
    """Cut everywhere."""
    return [data[i : i + 1] for i in range(len(data))]


def in_two(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut at each place in turn."""
    for i in range(len(data) + 1):
        yield data[:i], data[i:]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Cut at the given places; equal places give empty reads."""
    return [data[a:b] for a, b in pairwise([0, *sorted(min(place, len(data)) for place in places), len(data)])]


# --- the standard, read aloud ------------------------------------------------------------------------------------


def reference(data: bytes) -> tuple[list[ServerSentEvent], str, int | None]:
    """Interpret a complete stream as the standard tells it: decode all of it first, then go by lines of text."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\r|\n", text)
    lines.pop()  # what the end of the file cuts off is no line
    events = []
    data_buffer = event_type_buffer = last_event_id_buffer = last_event_id = ""
    reconnection_time = event_retry = None
    for line in lines:
        if line == "":
            last_event_id = last_event_id_buffer
            if data_buffer != "":
                events.append(event(data_buffer[:-1], event_type_buffer or "message", last_event_id, event_retry))
            data_buffer = event_type_buffer = ""
            event_retry = None
            continue
        if line[0] == ":":
            continue
        field, value = line, ""
        if ":" in line:
            field, value = line.split(":", 1)
            if value[:1] == " ":
                value = value[1:]
        if field == "event":
            event_type_buffer = value
        elif field == "data":
            data_buffer += value + "\n"
        elif field == "id" and "\0" not in value:
            last_event_id_buffer = value
        elif field == "retry" and re.fullmatch("0*[0-9]{1,15}", value):
            event_retry = reconnection_time = int(value[-15:])
    return events, last_event_id, reconnection_time


def before_too_large(data: bytes, limit: int) -> bytes | None:
    """Return what stands before the first line that makes an event too large; None if there is no such line."""
    if BOM.startswith(data):
        return None  # it may still become a BOM
    seen = len(BOM) if data.startswith(BOM) else 0
    in_data = 0
    fields: dict[bytes, int] = {}
    for line, end in re.findall(rb"([^\r\n]*)(\r\n|\r|\n|\Z)", data[seen:]):
        if line[:1] != b":" and len(line) + in_data + sum(fields.values()) > limit:
            return data[:seen]
        seen += len(line) + len(end)
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            in_data, fields = 0, {}
        elif field == b"data":
            in_data += len(value) + 1
        elif field == b"event" or (field == b"id" and b"\0" not in value):
            fields[field] = len(value)
    return None
