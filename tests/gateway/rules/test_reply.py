"""One reply: stop strings and the token limit."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxcache.gateway.rules.pieces import Piece
from ctxcache.gateway.rules.reply import Reply
from ctxcache.gateway.rules.tokens import count_tokens


def written(pieces: Sequence[str], stops: Sequence[str], limit: int) -> tuple[str, str | None, int]:
    """Write a reply; return its text, finish reason and tokens."""
    reply = Reply(stops, limit)
    shown = [reply.feed(piece) for piece in pieces]
    shown.append(reply.end())
    assert "".join(shown) == reply.text
    return reply.text, reply.finish_reason, reply.tokens


def by_definition(text: str, stops: Sequence[str], limit: int) -> tuple[str, str | None, int]:
    """Return the same by trying every place."""
    cut = next(end for end in range(len(text), -1, -1) if count_tokens(text[:end]) <= limit)
    for end in range(cut + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            shown = text[: end - max(map(len, complete))]
            return shown, "stop", count_tokens(shown)
    return text[:cut], "stop" if cut == len(text) else "length", count_tokens(text[:cut])


@settings(max_examples=300)
@example(["abba"], ["aba"], 9)
@example(["aabaab", "aabaac"], ["aabaac"], 9)
@given(
    st.lists(st.text("ab你", max_size=6), max_size=8),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=4),
    st.integers(1, 8),
)
def test_a_reply_depends_on_its_text_only(pieces: list[str], stops: list[str], limit: int) -> None:
    """However the text is cut into pieces, the token limit cuts first, then the first completed stop string."""
    assert written(pieces, stops, limit) == by_definition("".join(pieces), stops, limit)


def test_a_stop_string_is_found_across_pieces() -> None:
    """A stop string that spans three pieces cuts the reply and is never shown, not even in part."""
    reply = Reply(["END"], 100)
    assert [reply.feed(piece) for piece in ["so E", "N", "D there"]] == ["so ", "", ""]
    assert (reply.text, reply.finish_reason) == ("so ", "stop")


def test_what_might_become_a_stop_string_is_held_back_no_longer_than_that() -> None:
    """Held text is shown at the end, or as soon as no stop string can come of it."""
    reply = Reply(["aab"], 100)
    assert [reply.feed(piece) for piece in ["a", "a", "a", "c", "aa"]] == ["", "", "a", "aac", ""]
    assert (reply.end(), reply.finish_reason) == ("aa", "stop")


def test_of_two_stop_strings_completed_at_once_the_longer_counts() -> None:
    """Two stop strings completed by one character end the reply before the longer."""
    assert written(["one two"], ["wo", "two"], 100)[0] == "one "


def test_what_was_held_is_shown_where_the_tokens_end() -> None:
    """A half stop string is text after all if the token limit ends the reply."""
    assert written(["abcdEN", "DENDING"], ["ENDE"], 2) == ("abcd", "stop", 1)
    assert written(["abcdEN", "xDING"], ["ENDE"], 2) == ("abcdENxD", "length", 2)
    assert written(["abcdxxEN", "DENDING"], ["ENDE"], 2) == ("abcdxxEN", "length", 2)


def test_exactly_its_tokens_is_no_cut() -> None:
    """A text of exactly the token limit ends with `stop`; another character makes that `length`."""
    assert written(["abcd", "efgh"], [], 2) == ("abcdefgh", "stop", 2)
    assert written(["abcd", "efgh", "i"], [], 2) == ("abcdefgh", "length", 2)


def test_after_its_end_nothing_is_added() -> None:
    """Pieces after the end are not shown."""
    reply = Reply([], 1)
    assert (reply.feed("abcdefgh"), reply.feed("more"), reply.end(), reply.text) == ("abcd", "", "", "abcd")


def test_no_token_left_ends_it_at_once() -> None:
    """A reply of no tokens is empty and ends with `length`."""
    assert Reply([], 0).finish_reason == "length"
    assert written(["text"], [], 0) == ("", "length", 0)


def test_a_piece_lets_held_text_out() -> None:
    """Text held for a stop string comes before a piece that the engine answers for, and the order is kept."""
    reply = Reply(["END"], 100)
    assert reply.feed("so EN") == "so "
    assert reply.take(Piece(text="D")) == ["EN", "D"]
    assert reply.feed("END") == ""
    assert (reply.text, reply.finish_reason, reply.end()) == ("so END", "stop", "")


def test_a_piece_counts_as_its_text_and_reasoning() -> None:
    """Without an engine's report, text and reasoning are counted by the gateway's rule, beyond any limit."""
    reply = Reply((), 1)
    assert reply.take(Piece(text="abcd")) == "abcd"
    assert reply.take(Piece(text="efgh", finish_reason="content_filter")) == ["efgh"]
    assert len(list(reply.take(Piece(reasoning="ijkl")))) == 1
    assert (reply.tokens, reply.text, reply.reasoning) == (3, "abcdefgh", "ijkl")
    assert (reply.end(), reply.finish_reason) == ("", "content_filter")


def test_an_index_in_another_form_is_left_to_the_merging() -> None:
    """A fragment whose `index` is text is passed on as it is, and numbers nothing."""
    reply = Reply((), 100)
    reply.take(Piece(tool_calls=({"index": "0", "id": "a", "function": {"name": "f", "arguments": "{}"}},)))
    assert [call["id"] for call in reply.tool_calls] == ["a"]


def test_tool_calls_are_counted() -> None:
    """Names and arguments of tool calls are tokens of the reply."""
    reply = Reply((), 100)
    reply.feed("abcd")
    reply.take(Piece(tool_calls=({"index": 0, "function": {"name": "abcd", "arguments": "{}"}},)))
    assert reply.tokens == 1 + 1 + 1


def test_a_piece_that_shows_nothing_is_no_fragment() -> None:
    """A finish reason, a usage or nothing at all makes no chunk of its own."""
    reply = Reply((), 1)
    assert list(reply.take(Piece())) == list(reply.take(Piece(finish_reason="stop"))) == []


@pytest.mark.parametrize("size", [20_000])
def test_long_stop_strings_cost_linear_time(size: int) -> None:
    """The worst text for a long stop string takes linear time, in pieces of a single character."""
    reply = Reply(["a" * size + "b"], size * 2)
    begin = time.process_time()
    for _ in range(size):
        reply.feed("a")
    assert reply.feed("a" * 10) == "a" * 10
    assert time.process_time() - begin < 5
    assert reply.end() == "a" * size
