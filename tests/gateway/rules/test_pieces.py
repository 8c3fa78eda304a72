"""The pieces of an engine and the JSON of a piece in a stream."""

import json
from typing import Any

import pytest

from ctxcache import InvalidInputError
from ctxcache.gateway.rules.pieces import Piece, encode_delta


def test_a_delta_has_the_fields_that_a_piece_has() -> None:
    """Fields without a value are left out of the JSON; the result fits between other fields of a choice."""
    calls = [{"index": 0, "id": "a"}]
    assert json.loads(b"{%b}" % encode_delta(Piece(text="x"), ())) == {"delta": {"content": "x"}}
    whole = Piece(text='"\u2028', reasoning="y", logprobs={"content": []})
    assert json.loads(b"{%b}" % encode_delta(whole, calls)) == {
        "delta": {"content": '"\u2028', "reasoning_content": "y", "tool_calls": calls},
        "logprobs": {"content": []},
    }


@pytest.mark.parametrize("wrong", [Piece(reasoning="\udc00"), Piece(logprobs={"x": object()})], ids=repr)
def test_a_delta_that_json_cannot_carry_is_refused(wrong: Any) -> None:
    """A lone surrogate and an object of no JSON type raise an error of the package."""
    with pytest.raises(InvalidInputError):
        encode_delta(wrong, ())
