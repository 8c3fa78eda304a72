r"""Server-sent events: bytes to events, and back. Pure: no I/O, no waiting, no clock.

Goals
    The rules of the WHATWG to the letter (https://html.spec.whatwg.org/multipage/server-sent-events.html, "Parsing an
    event stream", "Interpreting an event stream"; quoted in the comments). Events and errors depend on the bytes alone,
    never on how the network cut the bytes. Linear time, bounded memory.

Invariants, between any two calls
    * Bytes are split before they are decoded, on CR and LF only: no code point is ever cut, and U+2028 ends no line.
      CR, LF and colon never occur inside a longer UTF-8 sequence, so decoding value by value equals decoding first.
    * `_line` is the incomplete last line, without a terminator. Every complete line was taken up into `_data`,
      `_fields` or `retry` and dropped: no byte is scanned twice.
    * `buffered <= max_event_bytes`. An event is too large when a line (without terminator; comments do not count) and
      the bytes already held for the event exceed the limit together. A line never adds more than its own length, so
      as long as `buffered + len(data)` is within the limit, nothing is counted: `tight` is False.

Cost
    Each byte is searched for CR, split, and copied: into `_line` for an incomplete line, then into the event.
    A bytearray grows in proportion, so appending is linear in sum, even byte by byte. split(b"\n") looks for a single
    byte (memchr) and takes less than half the time of split(b"\n\n"), which looks for two: hence a single path, line by
    line, that tries the most frequent line, `data: …`, first. Lines of an event that arrive in the same read are joined
    at once, in half the time of appending line by line.
"""

from collections.abc import Iterable
from typing import TypeAlias, final

from .errors import EventTooLargeError, InvalidInputError
from .structs import struct

__all__ = ["RawEvent", "SSEDecoder", "ServerSentEvent", "encode", "encode_data"]

_BOM = b"\xef\xbb\xbf"
# Searches name bytes by number: for `b"\n" in data` CPython first tries to read b"\n" as a number, and the exception
# costs ten times the search.
_COLON, _LF, _CR, _NUL = b":\n\r\0"
_RETRY_DIGITS = 15  # 31,000 years in ms, exact as a float; int() is quadratic, and refuses more than 4,300 digits

# (data, event, id, retry) as in ServerSentEvent, with data as bytes. A plain tuple: making an object of a class would
# cost more than decoding the event.
RawEvent: TypeAlias = tuple[bytes, str, str, int | None]


@final
@struct
class ServerSentEvent:
    """An event.

    Attributes:
        data: the data; several `data` lines are joined by LF.
        event: the type.
        id: the last event ID, set by this event or an earlier event; "" before the first.
        retry: the reconnection time in milliseconds, if this event set one.
    """

    data: str = ""
    event: str = "message"
    id: str = ""
    retry: int | None = None


class SSEDecoder:
    r"""An incremental decoder of a stream, from the first byte on.

    Bytes may be cut anywhere, inside a character too:

    >>> decoder = SSEDecoder()
    >>> decoder.feed(b"data: caf\xc3")
    []
    >>> decoder.feed(b"\xa9\n\nevent: error\nda")
    [ServerSentEvent(data='café', event='message', id='', retry=None)]
    >>> decoder.feed(b"ta: no\n\n")
    [ServerSentEvent(data='no', event='error', id='', retry=None)]

    The standard discards an event that is incomplete at the end of the input, so there is no method to call then.
    `buffered` and `leftover()` tell whether there was such an event.

    Attributes:
        last_event_id: the last event ID as of the last blank line; "" at first.
        retry: the reconnection time in milliseconds as of the last `retry` line; None at first. A value of more than
            15 digits is ignored, like any other text that is not a number.
        too_large: whether an event passed `max_event_bytes`: the next `feed` raises.
    """

    __slots__ = (
        "_after_cr",
        "_between",
        "_bom",
        "_data",
        "_fields",
        "_held",
        "_limit",
        "_line",
        "last_event_id",
        "retry",
        "too_large",
    )

    def __init__(self, max_event_bytes: int = 16 * 1024 * 1024) -> None:
        """Set how many bytes of an event may be held; `InvalidInputError` if below 1."""
        if max_event_bytes < 1:
            raise InvalidInputError.of("max_event_bytes", max_event_bytes, "an integer of at least 1")
        self._limit = max_event_bytes
        self._bom: bytes | None = b""  # the part of a BOM seen so far; None once decided
        self._after_cr = False  # the last byte was CR: a following LF belongs to the same line end
        self._between = False  # nothing is held, and the next byte begins a line
        self.too_large = False
        self.last_event_id = ""
        self.retry: int | None = None
        self._clear()

    def _clear(self) -> None:
        self._line = bytearray()
        self._data: bytes | bytearray | None = None  # the data buffer, less its last LF; bytes while it is one line
        self._fields: dict[bytes, bytes] = {}  # the event type buffer, the last event ID buffer; whether retry was set
        self._held = 0  # bytes in _data and _fields

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take the next bytes; return the completed events. Invalid UTF-8 becomes U+FFFD.

        Raises:
            EventTooLargeError: an event passed `max_event_bytes`. Events completed earlier by the same bytes are
                returned first; the next call raises (`feed(b"")` too), and so does every later call.
        """
        events = self.feed_raw(data)
        if not events:
            return []
        try:
            return [ServerSentEvent(value.decode(), event, id_, retry) for value, event, id_, retry in events]
        except UnicodeDecodeError:  # "replace" only now: with an argument decode() takes twice as long
            pass
        return [
            ServerSentEvent(value.decode(errors="replace"), event, id_, retry) for value, event, id_, retry in events
        ]

    def feed_raw(self, data: bytes) -> list[RawEvent]:
        """Do as `feed`, but leave the data of the events as bytes, for a parser that takes bytes."""
        # A server that writes each event by itself mostly brings one a read: nothing to split, nothing to keep.
        if (
            self._between
            and data[:6] == b"data: "
            and data.endswith(b"\n\n")
            and data.find(b"\n") == len(data) - 2
            and _CR not in data
            and len(data) <= self._limit
        ):
            return [(data[6:-2], "message", self.last_event_id, None)]
        self._between = False
        events = self._feed(data)
        held = self._line or self._data is not None or self._fields
        self._between = not (held or self._after_cr or self._bom is not None or self.too_large)
        return events

    def _feed(self, data: bytes) -> list[RawEvent]:
        line = self._line
        # Most of many small reads bring nothing but more of a line, and this is the short way. Where a line has begun,
        # BOM and CR are settled, and nothing was too large.
        more = line and line[0] != _COLON and _LF not in data and _CR not in data
        if more and len(line) + self._held + len(data) <= self._limit:
            line += data
            return []
        if self.too_large:
            raise self._error()
        if self._bom is not None:
            data = self._strip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        # "[…] (CRLF) character pair, a single […] (LF) character, or a single […] (CR)": splitlines() of bytes, unlike
        # that of str, takes just these. No waiting at a CR for an LF: the line is complete, and may complete an event.
        if _CR in data:
            lines = data.splitlines()
            self._after_cr = data.endswith(b"\r")
            if data.endswith((b"\r", b"\n")):
                lines.append(b"")
        else:
            lines = data.split(b"\n")
        tail = lines.pop()
        tight = len(self._line) + self._held + len(data) > self._limit
        events: list[RawEvent] = []
        try:
            if lines:
                if self._line:
                    lines[0] = b"".join((self._line, lines[0]))
                    self._line = bytearray()
                self._interpret(lines, events, tight)
            if tail:
                self._hold(tail, tight)
        except EventTooLargeError:
            if not events:
                raise
        return events

    @property
    def buffered(self) -> int:
        """Bytes held: the incomplete line (a comment's colon only), the event's data with LFs, type and ID."""
        return len(self._line) + self._held

    def leftover(self) -> bytes:
        """Return the data of the unfinished event, such as the `[DONE]` of a server that omits the last blank line.

        An end of line and a blank line would dispatch this data now; b"" if there is none. Raises like `feed`.
        """
        if self.too_large:
            raise self._error()
        name, value = _field(bytes(self._line))
        parts = [] if self._data is None else [self._data]
        return b"\n".join([*parts, value] if name == b"data" else parts)

    def _strip_bom(self, data: bytes) -> bytes:
        data = (self._bom or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._bom = data  # known bytes: they do not count as held
            return b""
        self._bom = None
        return data.removeprefix(_BOM)  # "strips one leading UTF-8 Byte Order Mark (BOM), if any"

    def _interpret(self, lines: list[bytes], events: list[RawEvent], tight: bool) -> None:
        """Process complete lines: the hot loop, so all state is in local variables."""
        data, fields = self._data, self._fields
        more: list[bytes] = []  # further lines of the data
        for line in lines:
            if not line:  # "If the line is empty (a blank line): Dispatch the event"
                event_type, retry = self._end_block() if fields else ("message", None)
                if data is not None:  # "If the data buffer is an empty string, […] return": no line of data, no event
                    if more or type(data) is bytearray:
                        data = b"\n".join((data, *more))
                        more.clear()
                    events.append((data, event_type, self.last_event_id, retry))  # type: ignore[arg-type]  # bytes by now
                    data = None
                continue
            if tight:
                data = _appended(data, more)
                if line[0] != _COLON and len(line) + self._size(data) > self._limit:
                    self._give_up()
            value = line.removeprefix(b"data: ")  # as _field() would split it, at half the cost
            if value is not line:
                pass
            elif line[0] == _COLON:  # "If the line starts with a […] COLON […]: Ignore the line"
                continue
            else:
                name, value = _field(line)
                if name != b"data":
                    self._set(name, value)
                    continue
            # "Append the field value to the data buffer, then append a single […] LF": written before the next line
            # instead, since the last one is removed at the dispatch anyway.
            if data is None:
                data = value
            else:
                more.append(value)
        self._data = data = _appended(data, more)
        self._held = self._size(data) if fields or data is not None else 0

    def _set(self, name: bytes, value: bytes) -> None:
        """Process a field that is not data. Names are compared "literally, with no case folding performed"."""
        if name == b"event" or (name == b"id" and _NUL not in value):  # with U+0000, "ignore the field"
            self._fields[name] = value
        elif name == b"retry" and value.isdigit():  # "only ASCII digits": bytes know no others
            digits = value.lstrip(b"0") or b"0"
            if len(digits) <= _RETRY_DIGITS:
                self.retry = int(digits)
                self._fields[name] = b""
        # "Otherwise: The field is ignored."

    def _end_block(self) -> tuple[str, int | None]:
        """Set the last event ID, which needs no data; return type and retry of the event, and clear the fields."""
        if b"id" in self._fields:
            self.last_event_id = self._fields[b"id"].decode("utf-8", "replace")
        event_type = self._fields.get(b"event", b"").decode("utf-8", "replace") or "message"
        retry = self.retry if b"retry" in self._fields else None
        self._fields.clear()
        return event_type, retry

    def _hold(self, tail: bytes, tight: bool) -> None:
        """Keep the beginning of an incomplete line."""
        self._line += tail
        if self._line[0] == _COLON:  # "If the line starts with a […] COLON […]: Ignore the line", however long
            del self._line[1:]
        elif tight and self.buffered > self._limit:
            self._give_up()

    def _size(self, data: bytes | bytearray | None) -> int:
        size = sum(map(len, self._fields.values())) if self._fields else 0
        return size if data is None else size + len(data) + 1

    def _give_up(self) -> None:
        self.too_large = True
        self._clear()
        raise self._error()

    def _error(self) -> EventTooLargeError:  # anew each time, or it would collect tracebacks
        # Without the size: the event has not ended, and how much of it is known depends on the cuts.
        return EventTooLargeError(f"a server-sent event has more than {self._limit} bytes (max_event_bytes)")


def _appended(data: bytes | bytearray | None, more: list[bytes]) -> bytes | bytearray | None:
    """Move the further lines into the data; in place where it was appended to before, so that this is linear."""
    if not more:
        return data
    if not isinstance(data, bytearray):
        data = bytearray(data or b"")
    data += b"\n"
    data += b"\n".join(more)
    more.clear()
    return data


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Split at "the first U+003A COLON"; without one, "using the whole line as the field name"."""
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")  # "If value starts with a U+0020 SPACE character, remove it from value."


def encode(events: Iterable[ServerSentEvent], last_event_id: str = "") -> bytes:
    r"""Encode events; a decoder returns the same events.

    >>> encode([ServerSentEvent("two\nlines", event="note")])
    b'event: note\ndata: two\ndata: lines\n\n'

    An `id` line is written where the ID changes. `last_event_id` is the ID the reader already has, if the events
    continue a stream.

    Raises:
        InvalidInputError: CR in data; CR or LF in type or ID; NUL in ID; a lone surrogate; an empty type; a retry
            below 0 or of more than 15 digits.
    """
    out = bytearray()
    for index, event in enumerate(events):
        if event.event != "message":
            out += b"event: %b\n" % _carried(index, "event", event.event, "\r\n")
        if event.id != last_event_id:
            out += b"id: %b\n" % _carried(index, "id", event.id, "\r\n\0")
            last_event_id = event.id
        if event.retry is not None:
            if not 0 <= event.retry < 10**_RETRY_DIGITS:
                raise InvalidInputError.of(f"events[{index}].retry", event.retry, "in [0, 10**15 - 1], in milliseconds")
            out += b"retry: %d\n" % event.retry
        for line in _carried(index, "data", event.data, "\r").split(b"\n"):
            out += b"data: %b\n" % line if line else b"data:\n"
        out += b"\n"
    return bytes(out)


def encode_data(data: bytes) -> bytes:
    r"""Encode an event of no type whose data is UTF-8 already, such as that of a `RawEvent`.

    >>> encode_data(b"two\nlines")
    b'data: two\ndata: lines\n\n'

    Raises:
        InvalidInputError: for CR in the data.
    """
    if _CR in data:
        raise InvalidInputError.of("data", data, "bytes without CR")
    if _LF in data:
        data = data.replace(b"\n", b"\ndata: ")
    return b"data: %b\n\n" % data


def _carried(index: int, field: str, value: str, refused: str) -> bytes:
    """Return the value in UTF-8, if a field can carry the value. On the wire an empty type is the same as no type."""
    if not any(character in value for character in refused) and (value or field != "event"):
        try:
            return value.encode()
        except UnicodeEncodeError:  # a lone surrogate
            pass
    allowed = f"text without {', '.join(map(repr, refused))} or lone surrogates"
    raise InvalidInputError.of(f"events[{index}].{field}", value, f"{allowed}, not empty" if not value else allowed)
