"""Settings: checked when they are made, and plain values from then on."""

import copy
import pickle
from decimal import Decimal
from typing import Any

import attrs
import pytest

from ctxcache.config import UNSET, Limits, Retry, Secret, Timeouts, hide
from ctxcache.errors import InvalidInputError
from ctxcache.models import AssistantMessage

NO_NUMBERS = ["1", True, float("nan"), float("inf"), [], object()]


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Timeouts) if field.init])
@pytest.mark.parametrize("value", [0, -1, *NO_NUMBERS])
def test_timeouts_are_checked(field: str, value: Any) -> None:
    """A limit is a number of seconds above 0, or None; the error names the field."""
    with pytest.raises(InvalidInputError, match="must be a number of seconds above 0, or None for no limit") as refused:
        Timeouts(**{field: value})
    assert refused.value.field == f"Timeouts.{field}"
    assert getattr(Timeouts(**{field: None}), field) is None
    assert getattr(Timeouts(**{field: 0.001}), field) == 0.001


@pytest.mark.parametrize(
    ("kind", "field"),
    [(Limits, "keepalive")] + [(Retry, name) for name in "first_delay max_delay max_elapsed max_retry_after".split()],
)
@pytest.mark.parametrize("value", [-1, None, *NO_NUMBERS])
def test_seconds_are_checked(kind: Any, field: str, value: Any) -> None:
    """A number of seconds may be 0 where that means something, never None."""
    with pytest.raises(InvalidInputError, match="must be a number of seconds from 0 up, got") as refused:
        kind(**{field: value})
    assert refused.value.field == f"{kind.__name__}.{field}"
    assert getattr(kind(**{field: 0}), field) == 0


@pytest.mark.parametrize(
    ("kind", "field", "least"),
    [(Limits, "connections", 0), (Limits, "event_bytes", 1), (Limits, "body_bytes", 1), (Retry, "attempts", 1)],
)
def test_counts_are_checked(kind: Any, field: str, least: int) -> None:
    """A count is a whole number from its least value up."""
    for value in (least - 1, 1.5, None, *NO_NUMBERS):
        with pytest.raises(InvalidInputError, match=f"must be a whole number from {least} up, got") as refused:
            kind(**{field: value})
        assert refused.value.field == f"{kind.__name__}.{field}"
    assert getattr(kind(**{field: least}), field) == least


def test_numbers_become_plain() -> None:
    """Numbers of other kinds are stored as the float or int of the same value."""
    assert type(Timeouts(total=Decimal("1.5")).total) is float  # type: ignore[arg-type]
    assert type(Retry(attempts=2.0).attempts) is int  # type: ignore[arg-type]


def test_settings_are_values() -> None:
    """Settings compare, hash, pickle and evolve, with the same checks, and cannot be changed."""
    timeouts = Timeouts(total=5)
    assert timeouts == pickle.loads(pickle.dumps(timeouts)) == attrs.evolve(Timeouts(), total=5.0)
    assert hash(timeouts) == hash(Timeouts(total=5))
    with pytest.raises(InvalidInputError, match=r"Timeouts\.total must be"):
        attrs.evolve(timeouts, total=0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        timeouts.total = 6  # type: ignore[misc]


def test_unset() -> None:
    """`UNSET` is false, says its name, and stays itself through copy and pickle."""
    assert not UNSET
    assert repr(UNSET) == "UNSET"
    assert pickle.loads(pickle.dumps(UNSET)) is copy.deepcopy(UNSET) is UNSET


def test_secret() -> None:
    """A secret neither prints, nor formats, nor pickles, nor copies into a pickle of something else."""
    secret = Secret("sk-1234")
    assert secret.reveal() == "sk-1234"
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}", "%s" % secret):  # noqa: UP031
        assert "1234" not in text
    for thing in (secret, [secret], {"a": secret}):
        with pytest.raises(InvalidInputError):
            pickle.dumps(thing)
    with pytest.raises(InvalidInputError):
        copy.deepcopy(secret)
    assert not hasattr(secret, "__dict__")


def test_redact() -> None:
    """A secret is blotted out of texts and JSON data, keys included; other data stays what it is."""
    secret = Secret("sk-1")
    data = {"sk-1": ["Bearer sk-1", {"a": "xsk-1sk-1"}], "n": [1, 2.5, None, True]}
    assert secret.redact(data) == {"…": ["Bearer …", {"a": "x……"}], "n": [1, 2.5, None, True]}
    assert secret.redact("nothing") == "nothing"


def test_a_secret_in_texts() -> None:
    """A secret is found in texts, None among them; a short one is not redacted, since it would match ordinary words."""
    assert Secret("sk-1").is_in(None, "Bearer sk-1")
    assert not Secret("sk-1").is_in(None, "sk-2")
    assert Secret("a").redact("a banana") == "a banana"


# --- secrets ----------------------------------------------------------------------------------------------------------

KEY = "sk-test/0123456789+abcdef"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"the key {KEY} is bad", "the key … is bad"),
        (KEY * 3, "………"),
        ("nothing of the kind", "nothing of the kind"),
        (f"cut: {KEY[:12]}", "cut: …"),
        (f"{KEY[9:]} follows", "… follows"),
        (f"x{KEY[5:20]}y{KEY[3:12]}z", "x…y…z"),
        ("sk-test", "sk-test"),
        ("", ""),
    ],
)
def test_redact_parts(text, redacted):
    """The secret is blotted out, and so are parts of it from 8 characters on."""
    assert Secret(KEY).redact(text) == redacted


def test_redact_data():
    """JSON data, tuples, bytes and models are gone through; their shape is kept."""
    secret = Secret(KEY)
    assert secret.redact({KEY: [KEY, 1, None, {"a": (KEY,)}]}) == {"…": ["…", 1, None, {"a": ("…",)}]}
    assert secret.redact(b"\xff" + KEY.encode() + b"\xff") == b"\xff\xe2\x80\xa6\xff"
    assert secret.redact(AssistantMessage(content=KEY)) == AssistantMessage(content="…")


def test_redact_long_texts():
    """Of a long text both ends are searched for parts, and all of it for the whole secret."""
    text = Secret(KEY).redact(f"{KEY[:20]}{'x' * 300_000}{KEY}{'x' * 300_000}{KEY[5:]}")
    assert text == f"…{'x' * 300_000}…{'x' * 300_000}…"


@pytest.mark.parametrize("key", ["abc", "k", ""])
def test_too_short_to_redact(key):
    """A key of up to 3 characters would match ordinary text."""
    assert Secret(key).redact("abc k") == "abc k"


def test_short_keys():
    """A key of fewer than 16 characters is blotted out as a whole only."""
    assert Secret("sk-012345678").redact("sk-012345678 sk-01234567") == "… sk-01234567"


@pytest.mark.parametrize("key", [KEY, "sk-012345678"])
@pytest.mark.parametrize("ending", ["", "…"])
@pytest.mark.parametrize("kept", range(4, 12))
def test_end_of_a_cut_text(key, ending, kept):
    """The first characters of a key at the end of a text that was cut are redacted, however few the cut left."""
    assert Secret(key).redact("x" * 480 + key[:kept] + ending) == "x" * 480 + "…"
    assert Secret(key).redact("x" * 480 + key[:3]) == "x" * 480 + key[:3]


def test_hidden():
    """Hidden strings are strings whose repr does not show them, in mappings as well; anything else stays as it is."""
    hidden = hide({"Cookie": "secret", "n": 1})
    assert hidden == {"Cookie": "secret", "n": 1}
    assert "secret" not in repr(hidden)
    assert hide(None) is None
    assert "secret" not in f"{hide('secret')!r}"
