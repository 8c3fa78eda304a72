"""Argument checks: each returns the value, or raises an `InvalidInputError` that names the field. Pure.

A subclass of str, int or float is returned as the plain type, and other numbers (numpy's, `Decimal`, `Fraction`) as the
float or int of the same value: JSON encoders take exact types only.

    >>> number("temperature", 0.7, 0, 2)
    0.7
    >>> whole("n", 3.0, 1)
    3
    >>> number("temperature", 9, 0, 2)
    Traceback (most recent call last):
    ctxcache.errors.InvalidInputError: temperature must be a number in [0, 2], got 9
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, Final, TypeVar

import attrs

from .errors import InvalidInputError

__all__ = [
    "api_key",
    "as_mapping",
    "flag",
    "instance",
    "json_fields",
    "json_mapping",
    "json_value",
    "number",
    "one_of",
    "plain_number",
    "string",
    "text",
    "whole",
]

T = TypeVar("T")

_SHOWN_PLACE: Final = 60  # characters of a place that is nested too deeply
_DEEPEST: Final = 200  # far deeper than any request; a recursive walk stays within Python's recursion limit
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1  # the integers that JSON readers accept and msgspec writes


def string(field: str, value: object) -> str:
    """Check that a value is a string."""
    if type(value) is str:
        return value
    if not isinstance(value, str):
        raise InvalidInputError.of(field, value, "a string")
    return str.__str__(value)  # not str(value): a subclass may override it


def text(field: str, value: object) -> str:
    """Check that a value is a non-empty string."""
    if not isinstance(value, str) or not value:
        raise InvalidInputError.of(field, value, "a non-empty string")
    return str.__str__(value)


def api_key(value: object) -> str:
    """Check that an `api_key` is one that a header can carry; the error does not show it."""
    if isinstance(value, str) and value != "" and value.isascii() and value.isprintable() and " " not in value:
        return value
    allowed = "printable ASCII without spaces"
    value = None  # tracebacks may show local variables
    raise InvalidInputError(f"api_key must be {allowed}", field="api_key", allowed=allowed)


def one_of(field: str, value: object, allowed: Iterable[str]) -> str:
    """Check that a value is among the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidInputError.of(field, value, " or ".join(map(repr, allowed)))
    return str.__str__(value)


def flag(field: str, value: object) -> bool:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise InvalidInputError.of(field, value, "True or False")
    return value


def instance(field: str, value: object, kind: type[T], allowed: str) -> T:
    """Check that a value is of a class."""
    if not isinstance(value, kind):
        raise InvalidInputError.of(field, value, allowed)
    return value


def plain_number(value: Any) -> Any:
    """Return a number as an int or a float; anything else, bool included, as given."""
    kind = type(value)
    if kind is float or kind is int or kind is bool:
        return value
    if isinstance(value, int) or (hasattr(kind, "__index__") and not isinstance(value, float)):
        try:
            return operator.index(value)
        except TypeError:  # numpy's bool
            return value
    if isinstance(value, Real | Decimal):
        try:
            return float(value)
        except (OverflowError, ValueError):  # beyond a float; Decimal's signalling NaN
            return value
    return value


def number(field: str, value: Any, low: float = -math.inf, high: float = math.inf, allowed: str = "") -> float:
    """Check that a value is a finite number in [low, high].

    Args:
        field: the name to give in the error.
        value: the value to check.
        low, high: the range.
        allowed: the allowed values in words, for the error; default: the range.
    """
    kind = type(value)
    if (kind is float or kind is int) and low <= value <= high and -math.inf < value < math.inf:
        usual: float = value
        return usual
    found = plain_number(value)
    if isinstance(found, int | float) and not isinstance(found, bool):
        finite = isinstance(found, int) or math.isfinite(found)
        if finite and low <= found <= high:
            return found
    raise InvalidInputError.of(field, value, allowed or _numbers("a number", low, high))


def whole(field: str, value: object, low: float = -math.inf, high: float = math.inf, allowed: str = "") -> int:
    """Check that a value is a whole number in [low, high]. 3.0 passes: JSON has a single kind of number."""
    if type(value) is int and low <= value <= high:
        return value  # the usual case
    found = plain_number(value)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
        raise InvalidInputError.of(field, value, allowed or _numbers("a whole number", low, high))
    return found


def _numbers(kind: str, low: float, high: float) -> str:
    return f"{kind} from {low:g} up" if math.isinf(high) else f"{kind} in [{low:.12g}, {high:.12g}]"


def as_mapping(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a mapping, a pydantic, an attrs or a dataclass object; None for any other value."""
    if isinstance(value, Mapping):
        return value
    kind = type(value)
    dump: Callable[[Any], Mapping[str, Any]] | None = getattr(kind, "model_dump", None)
    if dump is not None:
        return dump(value)
    if attrs.has(kind):
        return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def json_mapping(field: str, value: object) -> dict[str, Any]:
    """Check that a value is a mapping that JSON can carry; return a copy in plain types."""
    if not isinstance(value, Mapping):
        raise InvalidInputError.of(field, value, "a mapping with string keys")
    copy: dict[str, Any] = json_value(field, value)
    return copy


def json_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Check that JSON can carry every field; return a copy in plain types."""
    return {name: json_value(name, value) for name, value in fields.items()}


def json_value(field: str, value: Any, depth: int = 0) -> Any:
    """Check that JSON can carry a value; return a copy of dicts, lists, strings, numbers, True, False and None.

    Raises:
        InvalidInputError: `field` names the place within the value: `extra_body['temperature']`, `stop[1]`.
    """
    kind = type(value)
    if kind is bool or value is None:
        return value
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(field, value)
        return str.__str__(value)
    if isinstance(value, Mapping | list | tuple):
        if depth == _DEEPEST:
            raise InvalidInputError.of(f"{field[:_SHOWN_PLACE]}…", kind, f"nested at most {_DEEPEST} levels deep")
        if isinstance(value, Mapping):
            return {
                _key(field, name): json_value(f"{field}[{name!r}]", item, depth + 1) for name, item in value.items()
            }
        return [json_value(f"{field}[{index}]", item, depth + 1) for index, item in enumerate(value)]
    if (fields := as_mapping(value)) is not None:
        given = {name: item for name, item in fields.items() if item is not None}
        return json_value(field, given, depth)
    found = plain_number(value)
    if type(found) is int and _LOWEST <= found <= _HIGHEST:
        return found
    if type(found) is float and math.isfinite(found):
        return found
    raise InvalidInputError.of(field, value, _carried(found))


def _carried(value: object) -> str:
    if isinstance(value, int):
        return "an integer in [-2**63, 2**64 - 1]"
    if isinstance(value, float):
        return "a finite number"
    return "a string, a number, True, False, None, or a list or mapping of such values"


def _key(field: str, name: object) -> str:
    if not isinstance(name, str):
        raise InvalidInputError.of(field, {name: ...}, "a mapping with string keys")
    _check_unicode(field, name)
    return str.__str__(name)


def _check_unicode(field: str, value: str) -> None:
    """Refuse a lone surrogate, which UTF-8 cannot carry."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        place = f"text without lone surrogates (character {error.start})"
    else:
        return
    raise InvalidInputError.of(field, value, place)
