"""JSON that is nested more deeply than Python's recursion limit."""

import sys

import pytest

from ctxcache.codec import decode_chunk, decode_completion, decode_context, decode_json
from ctxcache.errors import ProtocolError


@pytest.mark.parametrize("decode", [decode_json, decode_context, decode_completion, decode_chunk])
@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000 + b"]" * 100_000, b'{"usage":' * 50_000 + b"1" + b"}" * 50_000],
    ids=["arrays", "objects"],
)
def test_deep_json(decode, data):
    """Valid JSON beyond the recursion limit is a `ProtocolError`; Python 3.14 may have the stack to read it."""
    try:
        decode(data)
    except ProtocolError as error:
        assert error.body == data[:2000].decode()
        assert error.__cause__ is None
    else:
        assert sys.version_info >= (3, 14)
