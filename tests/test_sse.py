"""The decoder of server-sent events: tables of streams, whole and cut, its limit and its cost."""

import tracemalloc
from collections.abc import Iterable

import pytest

from ctxcache.errors import EventTooLargeError, InvalidInputError
from ctxcache.sse import ServerSentEvent, SSEDecoder

from .sse_reference import BOM, MIB, byte_by_byte, event, in_two, reference, run

# --- tables of cases ---------------------------------------------------------------------------------------------

# name: (bytes that end with a blank line, events)
COMPLETE: dict[str, tuple[bytes, list[ServerSentEvent]]] = {
    # examples of the standard
    "three messages": (
        b"data: This is the first message.\n\ndata: This is the second message, it\ndata: has two lines.\n\n"
        b"data: This is the third message.\n\n",
        [
            event("This is the first message."),
            event("This is the second message, it\nhas two lines."),
            event("This is the third message."),
        ],
    ),
    "event types": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [event("73857293", "add"), event("2153", "remove"), event("113411", "add")],
    ),
    "stock ticker": (b"data: YHOO\ndata: +2\ndata: 10\n\n", [event("YHOO\n+2\n10")]),
    "four blocks": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [event("first event", id="1"), event("second event"), event(" third event")],
    ),
    "fields without colon": (b"data\n\ndata\ndata\n\n", [event(""), event("\n")]),
    "one space or none": (b"data:test\n\ndata: test\n\n", [event("test"), event("test")]),
    # the web platform tests, eventsource/format-*
    "field parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
        b"data:3\rdata:\r\n data:32\ndata:4\n\n",
        [event("\0\n 2\n1\n3\n\n4")],
    ),
    "newlines mixed": (b"data:test\r\ndata\ndata:test\r\n\r", [event("test\n\ntest")]),
    "leading tab": (b"data:\ttest\rdata: \ndata:test\n\n", [event("\ttest\n\ntest")]),
    "BOM inside": (BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", [event("1"), event("3")]),
    "two BOMs": (BOM + BOM + b"data:1\n\ndata:2\n\n", [event("2")]),
    # ends of line
    "CR": (b"data: a\r\rdata: b\rdata: c\r\r", [event("a"), event("b\nc")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\ndata: c\r\n\r\n", [event("a"), event("b\nc")]),
    "LF after CRLF": (b"data: a\r\n\n", [event("a")]),
    "CR after LF": (b"data: a\n\r", [event("a")]),
    "blank lines in excess": (b"\n\n\ndata: a\n\n\n\n\r\n\rdata: b\n\n", [event("a"), event("b")]),
    "the lines of Unicode are not lines": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
        [event("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg")],
    ),
    # data
    "BOM": (BOM + b"data: a\n\n", [event("a")]),
    "BOM before a comment": (BOM + b": hi\n\ndata: a\n\n", [event("a")]),
    "half a BOM": (BOM[:2] + b"data: a\n\ndata: b\n\n", [event("b")]),
    "BOM in a value": (b"data: " + BOM + b"a\n\n", [event("\ufeffa")]),
    "colons in a value": (b"data::a:b\n\n", [event(":a:b")]),
    "trailing space stays": (b"data: a \n\n", [event("a ")]),
    "CJK and emoji": ("data: 你好世界 🎉\n\n".encode(), [event("你好世界 🎉")]),
    "invalid UTF-8": (
        b"data: a\xffb\xe4\xbd\ndata: \xed\xa0\x80\nevent: \x80\nid: \xf0\x9f\n\n",
        [event("a\ufffdb\ufffd\n\ufffd\ufffd\ufffd", "\ufffd", "\ufffd")],
    ),
    "unknown fields": (b"Data: a\ndata : b\n data: c\nfoo: d\nfoo\ndata: e\n\n", [event("e")]),
    "comments": (b":\n: ping\n\n:data: a\ndata: b\n:c\ndata: d\n\n", [event("b\nd")]),
    # dispatch
    "no data, no event": (b"event: ping\n\nid: 4\n\nretry: 9\n\ndata: a\n\n", [event("a", id="4")]),
    "keep-alives after an ID": (
        b"id: 7\ndata: a\n\n: ping\n\n: ping\n\ndata: b\n\n",
        [event("a", id="7"), event("b", id="7")],
    ),
    "empty type": (b"event: a\nevent:\ndata: b\n\n", [event("b")]),
    "last type wins": (b"event: a\nevent: b\ndata: c\n\n", [event("c", "b")]),
    "type after data": (b"data: a\nevent: b\n\ndata: c\n\n", [event("a", "b"), event("c")]),
    # id
    "ID persists and is reset": (
        b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid:2\nid:3\ndata: d\n\n",
        [event("a", id="1"), event("b", id="1"), event("c"), event("d", id="3")],
    ),
    "ID with NUL": (b"id: 1\nid: 2\0\ndata: a\n\nid:\0\ndata: b\n\n", [event("a", id="1"), event("b", id="1")]),
    # retry
    "retry": (
        b"retry: 10\ndata: a\n\ndata: b\n\nretry:0\ndata:c\n\n",
        [event("a", retry=10), event("b"), event("c", retry=0)],
    ),
    "malformed retry": (
        b"retry: -5\nretry: +5\nretry: 1_0\nretry: 1.5\nretry:  5\nretry: 5 \nretry: 0x1\nretry\nretry:\ndata: a\n\n"
        + "retry: ٣\nretry: \uff15\nretry: ²\ndata: b\n\n".encode(),
        [event("a"), event("b")],
    ),
    "endless retry": (
        b"retry: %b\nretry: 12\nretry: 1%b\ndata: a\n\nretry: %b7\ndata: b\n\n" % (b"9" * 5000, b"0" * 15, b"0" * 5000),
        [event("a", retry=12), event("b", retry=7)],
    ),
    "longest retry": (b"retry: 999999999999999\ndata: a\n\n", [event("a", retry=999_999_999_999_999)]),
    # what comes where a stream was promised
    "a JSON body": (b'{"error": {"code": "AuthenticationError",\n"message": "no"}}\n\n', []),
    "an HTML page": (b"<!DOCTYPE html>\r\n<html>\r\n\r\n<body style='data: x'>502</body>\r\n\r\n", []),
}

# name: (bytes, bytes held at the end, data left over)
INCOMPLETE: dict[str, tuple[bytes, int, bytes]] = {
    "nothing": (b"", 0, b""),
    "complete": (b"data: a\n\n", 0, b""),
    "no end of line": (b"data: [DONE]", 12, b"[DONE]"),
    "no end of line, no space": (b"data:[DONE]", 11, b"[DONE]"),
    "no blank line": (b"data: [DONE]\n", 7, b"[DONE]"),
    "no blank line, CR": (b"data: [DONE]\r", 7, b"[DONE]"),
    "no blank line, CRLF": (b"data: [DONE]\r\n", 7, b"[DONE]"),
    "after an event": (b"data: a\n\ndata: [DONE]", 12, b"[DONE]"),
    "second line cut": (b"data: a\ndata: b", 2 + 7, b"a\nb"),
    "three lines": (b"data: a\ndata\ndata: b\n", 5, b"a\n\nb"),
    "name cut": (b"data: a\n\ndat", 3, b""),
    "name only": (b"data: a\ndata", 2 + 4, b"a\n"),
    "other field cut": (b"data: a\nevent: b", 2 + 8, b"a"),
    "type and ID": (b"event: ab\nid: c\n", 3, b""),
    "comment": (b"data: a\n\n: good", 1, b""),
    "part of a BOM": (BOM[:2], 0, b""),
}


class TestDecoding:
    """Complete events."""

    @pytest.mark.parametrize("case", COMPLETE)
    def test_whole(self, case: str) -> None:
        """A stream fed in one piece gives its events, and nothing stays held."""
        data, events = COMPLETE[case]
        outcome = run([data])
        assert outcome.events == events
        assert (outcome.buffered, outcome.leftover, outcome.error) == (0, b"", None)

    @pytest.mark.parametrize("case", COMPLETE)
    def test_cut(self, case: str) -> None:
        """Byte by byte, or in any two pieces, with empty reads between: the same."""
        data, _ = COMPLETE[case]
        whole = run([data])
        assert run(byte_by_byte(data)) == whole
        assert run([x for byte in byte_by_byte(data) for x in (byte, b"")]) == whole
        for head, tail in in_two(data[:500]):  # the long ones end in a row of zeros
            assert run([head, tail + data[500:]]) == whole

    @pytest.mark.parametrize("case", COMPLETE)
    def test_trailing_data(self, case: str) -> None:
        """What follows an event neither changes it nor is changed by it."""
        data, events = COMPLETE[case]
        last = events[-1].id if events else ""
        for parts in ([data + b"data: more\n\ndata: cut"], [data, b"data: more\n\ndata: cut"]):
            outcome = run(parts)
            assert outcome.events == [*events, event("more", id=last)]
            assert outcome.leftover == b"cut"

    @pytest.mark.parametrize("case", COMPLETE)
    def test_reference(self, case: str) -> None:
        """The reference below, which judges the random streams, passes the same table."""
        data, events = COMPLETE[case]
        assert reference(data)[0] == events

    def test_event_at_its_last_byte(self) -> None:
        """An event is there as soon as its blank line is, also where an LF may follow its CR."""
        for end in (b"\n\n", b"\r\r", b"\r\n\r", b"\n\r"):
            decoder = SSEDecoder()
            assert decoder.feed(b"data: a" + end[:-1]) == []
            assert decoder.feed(end[-1:]) == [event("a")]

    def test_raw(self) -> None:
        """`feed_raw` gives the same events as tuples, their data as bytes just as they came."""
        decoder = SSEDecoder()
        assert decoder.feed_raw(b"data: {}\n\ndata: \xff\ndata: b\nid: \xff\nevent: c\nretry: 3\n\n") == [
            (b"{}", "message", "", None),
            (b"\xff\nb", "c", "\ufffd", 3),
        ]
        [(line, *_), (lines, *_)] = SSEDecoder().feed_raw(b"data: a\n\ndata: b\ndata: c\n\n")
        assert type(line) is type(lines) is bytes

    def test_retry_at_once(self) -> None:
        """The reconnection time holds as soon as its line is seen, without data or a blank line."""
        decoder = SSEDecoder()
        assert decoder.retry is None
        decoder.feed(b"retry: 10")
        assert decoder.retry is None
        decoder.feed(b"\n")
        assert decoder.retry == 10
        decoder.feed(b"\ndata: a\n\nretry: x\n")
        assert decoder.retry == 10

    def test_id_at_the_blank_line(self) -> None:
        """The last event ID is set by the blank line, with or without data, and not by an event cut off."""
        decoder = SSEDecoder()
        assert decoder.last_event_id == ""
        decoder.feed(b"id: 1\n")
        assert decoder.last_event_id == ""
        decoder.feed(b"\n")
        assert decoder.last_event_id == "1"
        decoder.feed(b"id: 2\ndata: a\n")
        assert decoder.last_event_id == "1"

    def test_events_are_values(self) -> None:
        """Events compare and hash by value, and cannot be changed."""
        assert event("a") == event("a") != event("b")
        assert len({event("a"), event("a")}) == 1
        with pytest.raises(AttributeError):
            event("a").data = "b"  # type: ignore[misc]


class TestEndOfInput:
    """What is left when the input ends."""

    @pytest.mark.parametrize("case", INCOMPLETE)
    def test_incomplete(self, case: str) -> None:
        """An incomplete event is discarded; `buffered` and `leftover` tell of it, however it was cut."""
        data, buffered, leftover = INCOMPLETE[case]
        outcome = run([data])
        assert outcome.events == reference(data)[0]
        assert (outcome.buffered, outcome.leftover) == (buffered, leftover)
        assert run(byte_by_byte(data)) == outcome

    def test_looking_changes_nothing(self) -> None:
        """`leftover` leaves the decoder as it is."""
        decoder = SSEDecoder()
        decoder.feed(b"data: a\ndata: b\ndata: c")
        assert decoder.leftover() == decoder.leftover() == b"a\nb\nc"
        assert decoder.feed(b"d\n\n") == [event("a\nb\ncd")]


# name: (bytes whose event is just as large as the limit allows, the limit)
FITTING: dict[str, tuple[bytes, int]] = {
    "a line": (b"data: 1234\n\n", 10),
    "a line without its space": (b"data:12345\n\n", 10),
    "a line with CRLF": (b"data: 1234\r\n\r\n", 10),
    "lines": (b"data: 1\ndata: 2\ndata: 3\n\n", 2 + 2 + 7),
    "empty lines": (b"data\ndata\ndata\n\n", 1 + 1 + 4),
    "type and data": (b"event: ab\ndata: 1\n\n", 2 + 7),
    "ID and data": (b"id: ab\ndata: 1\n\n", 2 + 7),
    "an ID, twice": (b"id: abcdefg\nid: ab\ndata: 12\n\n", 7 + 6),
    "an unknown field": (b"foobar: 12\ndata: 1\n\n", 10),
    "retry": (b"retry: 12\ndata: 1\n\n", 9),
    "a BOM": (BOM + b"data: 1\n\n", 7),
}


class TestLimit:
    """`max_event_bytes`."""

    @pytest.mark.parametrize("case", FITTING)
    def test_just_fits(self, case: str) -> None:
        """An event may use the limit up, again and again, however it is cut."""
        data, limit = FITTING[case]
        whole = data + data.removeprefix(BOM) * 2
        expected = run([whole])
        assert len(expected.events) == 3
        assert run([whole], limit) == run(byte_by_byte(whole), limit) == expected
        for halves in in_two(whole):
            assert run(halves, limit) == expected

    @pytest.mark.parametrize("case", FITTING)
    def test_one_byte_more(self, case: str) -> None:
        """One byte more is too much, however it is cut."""
        data, limit = FITTING[case]
        whole = run([data], limit - 1)
        assert whole.events == []
        assert whole.error == f"a server-sent event has more than {limit - 1} bytes (max_event_bytes)"
        assert run(byte_by_byte(data), limit - 1) == whole
        for parts in in_two(data):
            assert run(parts, limit - 1) == whole

    def test_events_first(self) -> None:
        """Events before the one too large are returned; then every call raises, and nothing is held."""
        decoder = SSEDecoder(10)
        assert decoder.feed(b"id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: 12345\n\ndata: c\n\n") == [
            event("a", id="1"),
            event("b", id="1"),
        ]
        for _ in range(3):
            assert decoder.buffered == 0
            with pytest.raises(EventTooLargeError, match="more than 10 bytes"):
                decoder.feed(b"")
            with pytest.raises(EventTooLargeError, match="more than 10 bytes"):
                decoder.feed_raw(b"data: d\n\n")
            with pytest.raises(EventTooLargeError, match="more than 10 bytes"):
                decoder.leftover()
        assert decoder.last_event_id == "1"

    def test_at_once(self) -> None:
        """Without events before it, it raises at the byte that is too much, before the line or the event ends."""
        decoder = SSEDecoder(10)
        assert decoder.feed(b"data: 1234") == []
        assert decoder.buffered == 10
        with pytest.raises(EventTooLargeError):
            decoder.feed(b"5")
        assert decoder.buffered == 0

    @pytest.mark.parametrize("size", [10, 1000])
    def test_comments(self, size: int) -> None:
        """A comment may have any length: it is not held."""
        data = b"data: 1\n:" + b"x" * size + b"\ndata: 2\n\n"
        assert run([data], 10).events == [event("1\n2")]
        decoder = SSEDecoder(10)
        for byte in byte_by_byte(data[:-16]):
            decoder.feed(byte)
            assert decoder.buffered <= 7
        assert run(byte_by_byte(data), 10) == run([data], 10)

    @pytest.mark.parametrize("limit", [0, -1])
    def test_invalid(self, limit: int) -> None:
        """A limit below 1 is refused."""
        with pytest.raises(InvalidInputError, match=f"max_event_bytes must be an integer of at least 1, got {limit}"):
            SSEDecoder(limit)


class TestCost:
    """Linear time, bounded memory: shown by what is allocated, since a copy is an allocation."""

    @staticmethod
    def allocated(decoder: SSEDecoder, parts: Iterable[bytes]) -> int:
        """Sum up over the parts how far the memory in use rose while each was fed."""
        total = 0
        tracemalloc.start()
        try:
            for part in parts:
                before, _ = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                decoder.feed_raw(part)
                total += tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        return total

    @pytest.mark.parametrize(
        "seen",
        [b"data: " + b"x" * MIB, b"data: x\n" * (MIB // 8), b"event: %b\n" % (b"x" * MIB), b"id: %b\n" % (b"x" * MIB)],
        ids=["line", "lines", "type", "id"],
    )
    def test_no_copy_of_what_was_seen(self, seen: bytes) -> None:
        """A read of one byte behind a mebibyte of unfinished event does not copy the mebibyte."""
        decoder = SSEDecoder()
        decoder.feed_raw(seen)
        total = self.allocated(decoder, byte_by_byte(b"data: y\n" * 100))
        assert total < 8 * MIB  # the line becomes a value, the bytearray may move; a copy at each byte is 800 MiB

    def test_comment_is_not_held(self) -> None:
        """A comment of a mebibyte, in reads of a kibibyte, needs the memory of one read."""
        decoder = SSEDecoder()
        assert self.allocated(decoder, [b":" + b"x" * 1023] * 2) < 20_000
        assert max(self.allocated(decoder, [b"x" * 1024]) for _ in range(1000)) < 10_000
        assert decoder.feed(b"\ndata: a\n\n") == [event("a")]

    def test_one_read_of_many_events(self) -> None:
        """A mebibyte of events in one read needs memory in proportion to it."""
        data = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\n' * (MIB // 51)
        decoder = SSEDecoder()
        assert self.allocated(decoder, [data]) < 12 * MIB

    @pytest.mark.parametrize(("line", "count"), [(MIB, 1), (100, 1000)], ids=["one line", "lines"])
    def test_byte_by_byte(self, line: int, count: int) -> None:
        """A line of a mebibyte, or an event of a thousand lines, arrives byte by byte."""
        lines = ["x" * line] * count
        decoder = SSEDecoder()
        data = b"".join(b"data: %b\n" % x.encode() for x in lines)
        for i in range(len(data)):
            assert not decoder.feed_raw(data[i : i + 1])
        assert decoder.buffered == sum(len(x) + 1 for x in lines)
        assert decoder.feed(b"\n") == [event("\n".join(lines))]


@pytest.mark.parametrize(
    "later",
    [
        b"data: b\n\n",
        b"data: b\rdata: c\n\n",
        b"data: b\r\n\n",
        b"data: b\ndata: c\n\n",
        b"data: b\n",
        b"data: b\n\n\n",
        b"data: \n\n",
        b"data:b\n\n",
        b"\xef\xbb\xbfdata: b\n\n",
        b"id: 7\n\n",
        b"event: x\n",
        b": b\n\n",
        b"\n",
        b"",
    ],
)
@pytest.mark.parametrize("first", [b"", b"data: a\n\n", b"data: a\n\ndata: ", b"data: a\n\nid\n", b"data: a\r\n\r"])
def test_a_read_of_one_event_is_decoded_as_any_other(first: bytes, later: bytes) -> None:
    """An event that comes alone in a read is the event that the same bytes make in one read, whatever came before."""
    for after in (b"data: d\n\n", BOM + b"data: d\n\n"):
        together = SSEDecoder().feed(first + later + after)
        decoder = SSEDecoder()
        assert [event for data in (first, later, after) for event in decoder.feed(data)] == together


def test_an_event_too_large_ends_the_stream_for_a_read_of_one_event() -> None:
    """After an event that was too large no event is returned, not even one that comes alone in a read."""
    decoder = SSEDecoder(12)
    assert [event.data for event in decoder.feed(b"data: a\n\ndata: 1234567")] == ["a"]
    for _ in range(2):
        with pytest.raises(EventTooLargeError):
            decoder.feed(b"data: b\n\n")
