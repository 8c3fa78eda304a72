"""Models as plain data."""

import json
from typing import Any

import attrs
import pytest

from ctxcache.config import UNSET
from ctxcache.models.plain import BESIDE, NOT_WRITTEN, Model, to_plain, without_surrogates


@attrs.frozen
class One(Model):
    """A model with one field."""

    value: Any = None


@attrs.frozen
class Many(Model):
    """A model with a field that may be unset, a field beside the JSON, and further keys."""

    name: str = ""
    maybe: Any = UNSET
    beside: str = attrs.field(default="", metadata=BESIDE)
    extra: dict[str, Any] = attrs.field(factory=dict, metadata=NOT_WRITTEN)


@pytest.mark.parametrize("value", ["text", 7, None, 1.5, True])
def test_plain_values_stay(value: Any) -> None:
    """A value that JSON has is returned as it is."""
    assert to_plain(value) is value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_json_number(value: float) -> None:
    """A float that JSON does not have is refused, however deep."""
    with pytest.raises(ValueError, match="is no JSON number"):
        One(value=[{"deep": (value,)}]).to_dict()


def test_models_become_dicts() -> None:
    """Models, tuples, lists and mappings become dicts and lists; what is unset or beside the JSON is left out."""
    model = One(value=(Many(name="a", beside="hidden", extra={"more": [One(1)]}), {"key": Many(maybe=None)}))
    assert model.to_dict() == {
        "value": [{"name": "a", "more": [{"value": 1}]}, {"key": {"name": "", "maybe": None}}],
    }


def test_without_surrogates() -> None:
    """A half of a character that has no other half becomes U+FFFD, in names and values, however deep."""
    assert without_surrogates({"\ud83d": ["a\ude00", {"x": "\ud83d\ude00"}], "n": 1}) == {
        "\ufffd": ["a\ufffd", {"x": "\U0001f600"}],
        "n": 1,
    }


def test_to_json() -> None:
    """`to_json` is the same as text, without spaces, and not in ASCII escapes."""
    assert json.loads(One("你好").to_json()) == One("你好").to_dict()
    assert One("你好").to_json() == '{"value":"你好"}'
