"""How many values a JSON text holds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache.gateway.rules.json_items import count_items

texts = st.text(alphabet='[]{},:"\\ab你\n', max_size=12)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


def items(value: Any) -> int:
    """Count the commas, brackets and braces of a value's JSON, one by one."""
    if isinstance(value, dict):
        return 1 + max(0, len(value) - 1) + sum(map(items, value.values()))
    return 1 + max(0, len(value) - 1) + sum(map(items, value)) if isinstance(value, list) else 0


@given(values, st.booleans())
def test_punctuation_outside_of_strings_is_counted(value: Any, escaped: bool) -> None:
    """Commas, brackets and braces within strings do not count, however the strings are escaped."""
    assert count_items(json.dumps(value, ensure_ascii=escaped).encode()) == items(value)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@given(value=values)
def test_slices_change_nothing(size: int, value: Any) -> None:
    """A string, an escape or a character may lie across two slices."""
    assert count_items(json.dumps(value, ensure_ascii=False).encode(), size) == items(value)


@pytest.mark.parametrize("text", [b"", b"\\", b'"', b'"\\', b"\\\\\\", b'\\"[[', b"[" * 10, b'{"a":"\xff'])
def test_what_is_not_json_does_no_harm(text: bytes) -> None:
    """Any bytes are counted."""
    assert 0 <= count_items(text) <= len(text)
