"""Models as plain data: the content of the JSON."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from operator import attrgetter
from typing import Any, Final

import attrs

from ..config import UNSET
from ..errors import ProtocolError

__all__ = ["BESIDE", "NOT_WRITTEN", "FromJSON", "Model", "parse_int", "to_plain", "without_surrogates"]

_LONG_NUMBER: Final = 1000
# The beginning of a surrogate's escape, which is half a character.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

# Metadata of fields that are not part of the JSON: neither read nor written (BESIDE), or read only (NOT_WRITTEN).
BESIDE: Final[Mapping[str, bool]] = {"read": False, "written": False}
NOT_WRITTEN: Final[Mapping[str, bool]] = {"written": False}


class Model:
    """A part of a request or an answer, as JSON."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object as Python data."""
        plain: dict[str, Any] = to_plain(self)
        return plain

    def to_json(self) -> str:
        """Return the JSON object as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"))


@cache
def _written(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Return the names of a model's written fields, and a function that reads all values at once."""
    names = tuple(field.name for field in attrs.fields(kind) if field.metadata.get("written", True))
    return names, attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)


def to_plain(value: Any) -> Any:
    """Return models as dicts and lists, without fields that are `UNSET`; any other value unchanged.

    Raises:
        ValueError: for NaN or an infinity.
    """
    kind = type(value)
    if kind is str or kind is int or value is None:
        return value
    if kind is float:
        if not isfinite(value):
            raise ValueError(f"{value} is no JSON number")  # msgspec would write null
        return value
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    if attrs.has(kind):
        names, values = _written(kind)
        plain = {name: to_plain(item) for name, item in zip(names, values(value), strict=True) if item is not UNSET}
        extra = getattr(value, "extra", None)
        return {**plain, **to_plain(extra)} if extra else plain
    return value


def without_surrogates(value: Any) -> Any:
    """Return parsed JSON in which a lone surrogate, which no text may have, is U+FFFD."""
    if isinstance(value, str):
        # Two escapes that make a pair are one character by now; a surrogate that is left has no other half.
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_surrogates(item) for item in value]
    return value


class FromJSON(Model):
    """An object parsed from JSON that keeps the original bytes."""

    __slots__ = ()
    raw_json: bytes

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON object as sent by the service, fields unknown to this version included.

        For an object made by hand or folded from a stream: the JSON that the service would have sent.
        """
        return _parse(self.raw_json) if self.raw_json else super().to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return `raw` as JSON can carry the object.

        NaN, infinities and numbers beyond a float's range become None, half a character becomes U+FFFD.
        """
        return _parse(self.raw_json, carried=True) if self.raw_json else super().to_dict()


def _parse(raw_json: bytes, *, carried: bool = False) -> dict[str, Any]:
    try:
        # Fields that the models do not read were not checked: neither UTF-8, nor the size of numbers, nor depth.
        text = raw_json.removeprefix(BOM_UTF8).decode("utf-8", "replace")
        if not carried:
            raw: dict[str, Any] = json.loads(text, parse_int=parse_int)
            return raw
        parsed: dict[str, Any] = json.loads(
            text, parse_int=_finite_int, parse_float=_finite_float, parse_constant=lambda _: None
        )
        return without_surrogates(parsed) if _SURROGATE.search(raw_json) else parsed
    except (ValueError, RecursionError) as error:
        problem = str(error)
    raise ProtocolError(f"the server sent what cannot be read as JSON: {problem}")


def _finite_float(digits: str) -> float | None:
    """Read a JSON number; beyond a float's range as None."""
    value = float(digits)
    return value if isfinite(value) else None


def _finite_int(digits: str) -> int | None:
    """Read a JSON integer; from 1,000 digits up as None."""
    return int(digits) if len(digits) < _LONG_NUMBER else None


def parse_int(digits: str) -> int | float:
    """Read a JSON integer of any length; from 1,000 digits up, as a float."""
    return int(digits) if len(digits) < _LONG_NUMBER else float(digits)  # int() refuses more than 4,300 digits
