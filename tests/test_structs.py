"""`struct`: to attrs, its users and type checkers a frozen attrs class, laid out as a msgspec struct."""

import copy
import pickle
from functools import cached_property
from typing import Any

import attrs
import cattrs
import msgspec
import pytest
from rich.pretty import pretty_repr

from ctxcache import ChatCompletionChunk, PromptTokensDetails, Usage
from ctxcache.structs import struct

USAGE = Usage(prompt_tokens=3, completion_tokens=4, prompt_tokens_details=PromptTokensDetails(cached_tokens=2))


@struct(kw_only=True)
class Sample:
    """A class with every kind of field a struct can have."""

    shown: int
    hidden: str = attrs.field(default="", repr=False)
    beside: int = attrs.field(default=0, eq=False)
    items: dict[str, Any] = attrs.field(factory=dict, hash=False, metadata={"unit": "items"})

    @property
    def double(self) -> int:
        """A property of its own."""
        return 2 * self.shown


def test_fields_decide():
    """Equality, hash and repr follow the fields' options; a factory makes a new value each time."""
    sample = Sample(shown=1, hidden="x", beside=5, items={"a": 1})
    assert repr(sample) == "Sample(shown=1, beside=5, items={'a': 1})"
    assert "hidden" not in pretty_repr(sample)
    assert sample == Sample(shown=1, hidden="x", beside=6, items={"a": 1})
    assert sample != Sample(shown=1, hidden="y", beside=5, items={"a": 1})
    assert hash(sample) == hash(Sample(shown=1, hidden="x", items={"b": 2}))
    assert Sample(shown=1).items is not Sample(shown=1).items
    assert (sample.double, Sample.__module__, Sample.__doc__) == (2, __name__, Sample.__doc__)
    assert attrs.fields(Sample).items.metadata == {"unit": "items"}


def test_attrs_knows_them():
    """Attrs' functions work on structs as on any attrs class."""
    assert attrs.has(Usage)
    assert [field.name for field in attrs.fields(Usage)][:3] == ["prompt_tokens", "completion_tokens", "total_tokens"]
    assert attrs.asdict(USAGE)["prompt_tokens_details"] == {"cached_tokens": 2}
    assert attrs.astuple(USAGE, recurse=False)[:2] == (3, 4)
    assert attrs.evolve(USAGE, prompt_tokens=5) == Usage(
        prompt_tokens=5, completion_tokens=4, prompt_tokens_details=USAGE.prompt_tokens_details
    )
    attrs.resolve_types(Usage)


def test_they_are_frozen():
    """No field can be set or deleted."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        USAGE.prompt_tokens = 5  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del USAGE.prompt_tokens


def test_copies_are_equal():
    """Pickled, copied, or through cattrs and back, a struct is the same."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(USAGE, protocol)) == USAGE
    assert copy.copy(USAGE) == copy.deepcopy(USAGE) == USAGE
    assert cattrs.structure(cattrs.unstructure(USAGE), Usage) == USAGE


def test_they_match_by_keyword():
    """`match` sees the fields."""
    match USAGE:
        case Usage(prompt_tokens=3, prompt_tokens_details=PromptTokensDetails(cached_tokens=cached)):
            assert cached == 2
        case _:
            pytest.fail("no match")


def test_msgspec_reads_them():
    """JSON is read straight into the class, and defaults are left out of what is written."""
    assert msgspec.json.decode(b'{"shown":4}', type=Sample) == Sample(shown=4)
    assert msgspec.json.encode(Sample(shown=4)) == b'{"shown":4}'


def subclass(base):
    """A subclass in the usual way."""
    return type("Mine", (base,), {"__annotations__": {"note": str}, "note": ""})


def defined(base):
    """A subclass made by attrs."""
    return attrs.make_class("Mine", ["note"], bases=(base,))


def bare(base):
    """A subclass with methods only."""
    return type("Mine", (base,), {"method": lambda self: None})


@pytest.mark.parametrize("make", [subclass, defined, bare])
@pytest.mark.parametrize("base", [Usage, ChatCompletionChunk])
def test_subclasses_are_refused(make, base):
    """A subclass, whose own fields equality and repr would not know, is refused with a sentence."""
    with pytest.raises(TypeError, match=f"^{base.__name__} cannot be subclassed: its layout is fixed, for speed"):
        make(base)


class WithValidator:
    """A body with a validator."""

    a: int = attrs.field(default=0, validator=attrs.validators.instance_of(int))


class WithConverter:
    """A body with a converter."""

    a: int = attrs.field(default=0, converter=int)


class WithAlias:
    """A body with an alias."""

    a: int = attrs.field(default=0, alias="b")


class WithPrivateName:
    """A body with a private name, for which attrs makes an alias."""

    _a: int = 0


class WithoutInit:
    """A body with a field that is no argument."""

    a: int = attrs.field(default=0, init=False)


class WithSelf:
    """A body with a default made of the object."""

    a: int = attrs.field(default=attrs.Factory(id, takes_self=True))


class WithKey:
    """A body with a key to compare by."""

    a: str = attrs.field(default="", eq=str.lower)


class WithPostInit:
    """A body with attrs' own hook."""

    a: int = 0

    def __attrs_post_init__(self) -> None:
        """Never called in a struct."""


class WithInit:
    """A body with its own constructor."""

    a: int = 0

    def __init__(self) -> None:
        """Never called in a struct."""


class WithSuper:
    """A method that needs the class it was written in."""

    a: int = 0

    def method(self) -> str:
        """Call the method of the base."""
        return super().__repr__()


class WithSuperProperty:
    """A property that needs the class it was written in."""

    a: int = 0

    @property
    def method(self) -> str:
        """Call the method of the base."""
        return super().__repr__()


class WithCache:
    """A cached property, which is kept in a dict."""

    a: int = 0

    @cached_property
    def b(self) -> int:
        """A number."""
        return 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (WithValidator, "WithValidator.a: a struct's field cannot have a validator"),
        (WithConverter, "WithConverter.a: a struct's field cannot have a converter"),
        (WithAlias, "WithAlias.a: a struct's field cannot have an alias"),
        (WithPrivateName, "WithPrivateName._a: a struct's field cannot have an alias"),
        (WithoutInit, "WithoutInit.a: a struct's field cannot have init=False"),
        (WithSelf, "WithSelf.a: a struct's field cannot have a default that takes self"),
        (WithKey, "WithKey.a: a struct's field cannot have a key to compare by"),
        (WithPostInit, "WithPostInit: a struct cannot have __attrs_post_init__"),
        (WithInit, "WithInit: a struct cannot have __init__"),
        (WithSuper, "WithSuper.method: a struct's method cannot use super"),
        (WithSuperProperty, "WithSuperProperty.method: a struct's method cannot use super"),
        (WithCache, "WithCache.b: a struct cannot have a cached_property"),
    ],
)
def test_what_a_struct_cannot_do_is_said(body, told):
    """What attrs offers and a struct cannot fails when the class is made, never in silence."""
    with pytest.raises(TypeError, match=f"^{told}"):
        struct(body)
