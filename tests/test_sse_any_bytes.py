"""The decoder of server-sent events on any bytes, cut anywhere, against the text of the standard."""

from hypothesis import example, given
from hypothesis import strategies as st

from ctxcache.errors import EventTooLargeError
from ctxcache.sse import SSEDecoder

from .sse_reference import BOM, before_too_large, byte_by_byte, cut, cuts, reference, run, slow_machines_are_fine

FRAGMENTS = [
    *b"data:|data: |data|event:|event: |id:|id: |id|retry:|retry: |:| |a|0|12|9999999999999999|xxxxxxxxx|\0".split(
        b"|"
    ),
    *b"\n|\n|\n\n|\r|\r|\r\n|\r\n\r\n|\n\r|\x0b|\x0c|\x1c|\xe2\x80\xa8|\xc2\x85".split(b"|"),
    *(BOM, b"\xef", b"\xbb", b"\xbf", "你".encode(), b"\xe4\xbd", b"\xa0", "🎉".encode(), b"\xf0\x9f", b"\xff"),
]
LINES = [b"%b\n" % line for line in b"data: ab|data:ab|data|event: ab|id: ab|retry: 12|: ab||".split(b"|")]
# Fragments alone seldom make events, and lines alone are never malformed.
pieces = st.sampled_from(FRAGMENTS) | st.sampled_from(LINES) | st.binary(max_size=3)
streams = st.lists(pieces, max_size=40).map(b"".join)
limits = st.integers(1, 40)


class TestAnyBytes:
    """Properties of all streams and all their partitions."""

    @slow_machines_are_fine
    @given(streams, cuts)
    @example(BOM + b"\n", [1, 2])
    @example(b"data: a\r\n\r\n", [8, 8, 10])
    def test_as_the_standard_says(self, data: bytes, places: list[int]) -> None:
        """Any bytes, cut anywhere, give what the standard says of them as a whole."""
        events, last_event_id, retry = reference(data)
        outcome = run(cut(data, places))
        assert outcome[:4] == (events, None, last_event_id, retry)

    @slow_machines_are_fine
    @given(streams, cuts, limits)
    @example(BOM[:2] + b"\n", [1, 2], 1)
    @example(b":xxxx\ndata\n:\n\n", [9], 4)
    def test_with_a_small_limit(self, data: bytes, places: list[int], limit: int) -> None:
        """A limit lets the events pass that come before the first line too much, then raises, cut anywhere."""
        before = before_too_large(data, limit)
        outcome = run(cut(data, places), limit)
        assert outcome.events == reference(data if before is None else before)[0]
        assert (outcome.error is None) == (before is None)
        assert outcome == run([data], limit) == run(byte_by_byte(data), limit)

    @slow_machines_are_fine
    @given(streams, cuts)
    def test_leftover_is_what_a_blank_line_would_dispatch(self, data: bytes, places: list[int]) -> None:
        """`leftover` is the data of the event that an end of line and a blank line bring; nothing else is pending."""
        decoder = SSEDecoder()
        for part in cut(data, places):
            decoder.feed(part)
        leftover, buffered = decoder.leftover(), decoder.buffered
        events = decoder.feed_raw(b"\n\n")
        assert [x[0] for x in events] == ([leftover] if events else [])
        assert leftover == b"" or events
        assert not events or buffered
        assert decoder.buffered == 0

    @slow_machines_are_fine
    @given(st.lists(st.binary(max_size=50), max_size=20), limits)
    def test_nothing_else_is_raised(self, parts: list[bytes], limit: int) -> None:
        """Arbitrary bytes raise nothing but `EventTooLargeError`, and once raised it stays; the limit always holds."""
        decoder = SSEDecoder(limit)
        failed = False
        for part in parts:
            try:
                decoder.feed(part)
                assert not failed
            except EventTooLargeError:
                failed = True
            assert 0 <= decoder.buffered <= limit
