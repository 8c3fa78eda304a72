"""Checks of arguments: the value in its plain type, or an error that names the field."""

import decimal
import fractions
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import InvalidInputError, checks


class Text(str):
    """A subclass that shows itself as something else."""

    def __str__(self) -> str:
        return "shown"


class Whole(int):
    """A subclass of int."""


class Real(float):
    """A subclass of float."""


class Index:
    """A number that is no int but can be used as one, as numpy's integers are."""

    def __index__(self) -> int:
        return 3


class NoIndex:
    """A value that says it can be used as an int and cannot, as numpy's booleans are."""

    def __index__(self) -> int:
        raise TypeError("not an integer")


class Unprintable:
    """A value whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def refused(check, *args, **named):
    """The error of a check, which must refuse."""
    with pytest.raises(InvalidInputError) as caught:
        check(*args, **named)
    return caught.value


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (2, 2),
        (0.5, 0.5),
        (Whole(2), 2),
        (Real(0.5), 0.5),
        (Index(), 3),
        (decimal.Decimal("0.5"), 0.5),
        (fractions.Fraction(1, 4), 0.25),
    ],
    ids=["int", "float", "int subclass", "float subclass", "index", "Decimal", "Fraction"],
)
def test_numbers_become_plain(given, plain):
    """Whatever kind of number is given, an int or a float of the same value is kept."""
    found = checks.number("x", given, 0, 9)
    assert (found, type(found)) == (plain, type(plain))
    assert checks.json_value("x", given) == plain


@pytest.mark.parametrize(
    "bad",
    [
        True,
        "1",
        None,
        b"1",
        [],
        -1,
        10,
        math.nan,
        math.inf,
        decimal.Decimal("sNaN"),
        decimal.Decimal("1e999"),
        NoIndex(),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_is_no_number_of_the_range(bad):
    """Booleans, texts, NaN, infinities and numbers out of the range are refused by the field's name."""
    error = refused(checks.number, "x", bad, 0, 9)
    assert (error.field, error.allowed) == ("x", "a number in [0, 9]")
    assert error.message.startswith("x must be a number in [0, 9], got ")


def test_whole_numbers():
    """3.0 is whole, 3.5 is not; a range without an upper end is said as "from … up"."""
    assert [checks.whole("n", value, 1) for value in (3, 3.0, Whole(3), Index())] == [3, 3, 3, 3]
    assert type(checks.whole("n", Whole(3), 1)) is int
    for bad in (3.5, True, "3", 0, math.nan, math.inf):
        assert refused(checks.whole, "n", bad, 1).allowed == "a whole number from 1 up"
    assert refused(checks.whole, "ttl", 7, 3600, 604800).allowed == "a whole number in [3600, 604800]"
    assert refused(checks.whole, "ttl", 7, 3600, allowed="an hour").message == "ttl must be an hour, got 7"


def test_texts_become_plain():
    """A subclass of str is the text it holds, not the one it shows."""
    for check in (checks.string, checks.text):
        found = check("x", Text("held"))
        assert (found, type(found)) == ("held", str)
    assert checks.string("x", "") == ""
    assert checks.one_of("role", Text("user"), ("system", "user")) == "user"
    assert refused(checks.text, "x", "").allowed == "a non-empty string"
    assert refused(checks.string, "x", b"a").allowed == "a string"
    assert refused(checks.one_of, "role", "robot", ("system", "user")).allowed == "'system' or 'user'"


@pytest.mark.parametrize("value", ["", "sk 5", "schl\u00fcssel", "line\nfeed", 5, None])
def test_a_key_is_printable_ascii(value):
    """Any other value is refused, and not shown."""
    assert checks.api_key("sk-~!5") == "sk-~!5"
    error = refused(checks.api_key, value)
    assert (error.field, error.value, error.message) == (
        "api_key",
        None,
        "api_key must be printable ASCII without spaces",
    )


def test_flags_and_instances():
    """Only True and False are flags; an instance is named by its class, or in the caller's words."""
    assert checks.flag("x", False) is False
    assert refused(checks.flag, "x", 1).allowed == "True or False"
    assert checks.instance("x", 5, int, "an int, or None") == 5
    assert refused(checks.instance, "x", "5", int, "an int, or None").allowed == "an int, or None"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_json_is_copied(value):
    """JSON stays as it is, in new containers."""
    copy = checks.json_mapping("x", value)
    assert copy == value
    assert copy is not value


def test_json_in_other_types():
    """Tuples, mappings and subclasses of str become lists, dicts and plain strings."""
    copy = checks.json_value("x", ({Text("a"): Text("b")}, (1,)))
    assert copy == [{"a": "b"}, [1]]
    assert [type(item) for item in (*copy[0], *copy[0].values())] == [str, str]


LOOP: dict = {}
LOOP["again"] = LOOP
DEEP: list = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "place", "allowed"),
    [
        ({"a": [1, {"b": math.nan}]}, "x['a'][1]['b']", "a finite number"),
        ([0, -math.inf], "x[1]", "a finite number"),
        ({"a": 2**64}, "x['a']", "an integer in [-2**63, 2**64 - 1]"),
        ({"a": -(2**63) - 1}, "x['a']", "an integer in [-2**63, 2**64 - 1]"),
        ({"a": "b\ud800"}, "x['a']", "text without lone surrogates (character 1)"),
        ({"\udfff": 1}, "x", "text without lone surrogates (character 0)"),
        ({"a": b"b"}, "x['a']", "a string, a number, True, False, None, or a list or mapping of such values"),
        ({"a": {1, 2}}, "x['a']", "a string, a number, True, False, None, or a list or mapping of such values"),
        ({"a": Unprintable()}, "x['a']", "a string, a number, True, False, None, or a list or mapping of such values"),
        ({"a": {1: 2}}, "x['a']", "a mapping with string keys"),
    ],
    ids=["nan", "inf", "large", "small", "surrogate", "surrogate key", "bytes", "set", "unprintable", "int key"],
)
def test_what_json_cannot_carry(value, place, allowed):
    """The error names the place within the value, and what may stand there."""
    error = refused(checks.json_value, "x", value)
    assert (error.field, error.allowed) == (place, allowed)


@pytest.mark.parametrize("value", [LOOP, DEEP], ids=["loop", "deep"])
def test_what_has_no_end(value):
    """What contains itself, or is nested without end, is refused without a RecursionError, in a short message."""
    error = refused(checks.json_value, "x", value)
    assert error.allowed == "nested at most 200 levels deep"
    assert len(error.message) < 200


def test_json_fields():
    """Each of some fields is named by itself."""
    assert checks.json_fields({"a": (1,)}) == {"a": [1]}
    assert refused(checks.json_fields, {"a": 1, "b": [math.nan]}).field == "b[0]"
    assert refused(checks.json_mapping, "extra_body", [1]).allowed == "a mapping with string keys"
