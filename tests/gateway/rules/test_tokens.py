"""How tokens are counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache.gateway import count_tokens
from ctxcache.gateway.rules.tokens import TokenCounter

# Texts that change between wide and narrow characters often.
texts = st.text(alphabet=st.sampled_from("ab é你好。한글カ\U00020000"), max_size=30)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abcd", 1),
        ("abcde", 2),
        ("Hello, please tell me a joke.", 8),
        ("é" * 5, 2),
        ("你好", 2),
        ("你好。世界", 5),
        ("한글 カナ", 5),
        ("hi你there", 4),
        ("a你a你", 4),
        ("\U00020000\U00020001", 2),
    ],
)
def test_the_rule(text: str, tokens: int) -> None:
    """A wide character is a token; other text has a token for every four characters begun."""
    assert count_tokens(text) == tokens


@given(st.lists(texts))
def test_piece_by_piece_is_all_at_once(pieces: list[str]) -> None:
    """A text has the same number of tokens however cut into pieces."""
    counter = TokenCounter()
    for piece in pieces:
        assert counter.add(piece) == len(piece)
    assert counter.tokens == count_tokens("".join(pieces))


@given(st.lists(texts), st.integers(0, 12))
def test_a_limit_takes_the_longest_prefix_that_keeps_it(pieces: list[str], most: int) -> None:
    """A limit takes the longest prefix of the text within so many tokens."""
    counter, taken, text = TokenCounter(), "", "".join(pieces)
    for piece in pieces:
        fits = counter.add(piece, most)
        taken += piece[:fits]
        if fits < len(piece):
            break
    assert text.startswith(taken)
    assert counter.tokens == count_tokens(taken) <= most
    assert taken == text or count_tokens(text[: len(taken) + 1]) > most


@pytest.mark.parametrize("period", ["a你", "abcd你好", "é", "你", "ab你好cdefg\U00020000"])
@pytest.mark.parametrize("begin", ["", "a", "abc你"])
def test_slices_of_a_long_text_change_nothing(begin: str, period: str) -> None:
    """A text longer than a slice has as many tokens as its pieces in turn."""
    text = begin + period * 40_000
    counter = TokenCounter()
    for start in range(0, len(text), 1000):
        counter.add(text[start : start + 1000])
    assert count_tokens(text) == counter.tokens
