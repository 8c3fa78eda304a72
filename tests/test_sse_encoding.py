"""The encoder of server-sent events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache.errors import InvalidInputError
from ctxcache.sse import ServerSentEvent, SSEDecoder, encode, encode_data

from .sse_reference import cut, cuts, event, run, slow_machines_are_fine


def text(without: str, min_size: int = 0) -> st.SearchStrategy[str]:
    """Text that a field can carry, with a bias to what might trip it up."""
    characters = st.characters(exclude_categories=["Cs"], exclude_characters=without)
    biased = st.sampled_from([c for c in ":\n\r\0 \ufeff\u2028\u0085a你🎉" if c not in without])
    return st.text(characters | biased, min_size=min_size, max_size=12)


events_lists = st.lists(
    st.builds(
        ServerSentEvent,
        data=text("\r"),
        event=st.just("message") | text("\r\n", min_size=1),
        id=st.sampled_from(["", "1"]) | text("\r\n\0"),
        retry=st.none() | st.integers(0, 10**15 - 1),
    ),
    max_size=6,
)

UNENCODABLE = {
    "CR in data": ("data", "a\rb"),
    "surrogate in data": ("data", "\ud800"),
    "CR in type": ("event", "a\r"),
    "LF in type": ("event", "a\n"),
    "empty type": ("event", ""),
    "surrogate in type": ("event", "\udfff"),
    "CR in ID": ("id", "\r"),
    "LF in ID": ("id", "1\n2"),
    "NUL in ID": ("id", "1\0"),
    "surrogate in ID": ("id", "\ud83c"),
    "negative retry": ("retry", -1),
    "retry of 16 digits": ("retry", 10**15),
}


class TestEncoding:
    """`encode`."""

    @slow_machines_are_fine
    @given(events_lists, cuts)
    def test_round_trip(self, events: list[ServerSentEvent], places: list[int]) -> None:
        """What is encoded decodes to the same events, cut anywhere."""
        assert run(cut(encode(events), places)).events == events

    @slow_machines_are_fine
    @given(events_lists, st.integers(0, 6))
    def test_in_two_parts(self, events: list[ServerSentEvent], place: int) -> None:
        """Encoding a stream in parts, handing on the last ID, gives the same bytes as at once."""
        first, rest = events[:place], events[place:]
        assert encode(first) + encode(rest, first[-1].id if first else "") == encode(events)

    def test_form(self) -> None:
        """Only what says something is written, one field a line, each with one space."""
        assert encode([event("a\n b\n\n", "add", "7", 5)]) == (
            b"event: add\nid: 7\nretry: 5\ndata: a\ndata:  b\ndata:\ndata:\n\n"
        )
        assert encode([event("{}"), event()]) == b"data: {}\n\ndata:\n\n"
        assert encode([]) == b""

    def test_id_on_change(self) -> None:
        """An ID is written where it changes from what the reader has, and reset by an empty line."""
        events = [event("a", id="1"), event("b", id="1"), event("c"), event("d")]
        assert encode(iter(events)) == b"id: 1\ndata: a\n\ndata: b\n\nid: \ndata: c\n\ndata: d\n\n"
        assert encode(events[1:2], last_event_id="1") == b"data: b\n\n"
        assert encode(events[3:], last_event_id="1") == b"id: \ndata: d\n\n"

    @pytest.mark.parametrize("case", UNENCODABLE)
    def test_refusal(self, case: str) -> None:
        """What the format cannot carry is refused, with its place, its value and what is allowed."""
        field, value = UNENCODABLE[case]
        with pytest.raises(InvalidInputError) as caught:
            encode([event(), ServerSentEvent(**{field: value})])  # type: ignore[arg-type]
        assert caught.value.field == f"events[1].{field}"
        assert caught.value.value == repr(value)
        assert ("not empty" in caught.value.allowed) == (value == "")


class TestEncodingData:
    """`encode_data`."""

    @slow_machines_are_fine
    @given(st.binary(max_size=20) | text("\r").map(str.encode))
    def test_round_trip(self, data: bytes) -> None:
        """Any bytes without CR come back as the data of an event without a type."""
        data = data.replace(b"\r", b"\n")
        assert SSEDecoder().feed_raw(encode_data(data)) == [(data, "message", "", None)]

    @given(text("\r"))
    def test_same_as_encode(self, data: str) -> None:
        """A reader sees the same as from `encode`."""
        assert SSEDecoder().feed(encode_data(data.encode())) == SSEDecoder().feed(encode([ServerSentEvent(data)]))

    def test_cr(self) -> None:
        """CR, which ends a line, is refused."""
        with pytest.raises(InvalidInputError, match="data must be bytes without CR"):
            encode_data(b"a\rb")
