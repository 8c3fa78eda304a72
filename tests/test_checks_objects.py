"""Objects of other libraries where JSON is expected."""

import dataclasses
from typing import Any

import attrs
import pytest

from ctxcache.checks import as_mapping, json_value
from ctxcache.errors import InvalidInputError


@dataclasses.dataclass
class OfDataclasses:
    """A dataclass."""

    name: str = "a"
    missing: Any = None


@attrs.frozen
class OfAttrs:
    """An attrs class."""

    name: str = "a"
    missing: Any = None


class OfPydantic:
    """An object with pydantic's method."""

    def model_dump(self) -> dict[str, Any]:
        """Return the fields."""
        return {"name": "a", "missing": None}


@pytest.mark.parametrize("value", [OfDataclasses(), OfAttrs(), OfPydantic()])
def test_objects_are_mappings(value: object) -> None:
    """The fields of an object are its mapping; in JSON, fields that are None are left out."""
    assert as_mapping(value) == {"name": "a", "missing": None}
    assert json_value("field", [value]) == [{"name": "a"}]


def test_other_objects_are_not() -> None:
    """Any other object is no mapping, and nothing that JSON can carry."""
    assert as_mapping(object()) is None
    with pytest.raises(InvalidInputError, match="field must be a string, a number, True, False, None, or a list"):
        json_value("field", object())


def test_numbers_json_cannot_carry() -> None:
    """An integer beyond 64 bits, and a float that is not finite, are refused with what is allowed."""
    with pytest.raises(InvalidInputError, match=r"must be an integer in \[-2\*\*63, 2\*\*64 - 1\]"):
        json_value("field", 2**64)
    with pytest.raises(InvalidInputError, match="must be a finite number"):
        json_value("field", float("nan"))
