"""Turns that were lost or doubled, by a record."""

from ctxcache.models import ContextRequest, system, user
from ctxcache.testing.books import doubled_turns, lost_turns, repeats

from .records import MODEL, Records


def test_an_answered_call_is_not_repeated(records: Records) -> None:
    """The same question after a whole answer is a new question; after half an answer it is a repeat."""
    records.create("c")
    records.chat("one")
    records.chat("one")
    assert list(repeats(records.calls)) == []
    first, second, third = records.refused("two"), records.refused("two"), records.chat("two")
    assert list(repeats(records.calls)) == [(first, second), (second, third)]


def test_a_create_is_repeated_without_a_context(records: Records) -> None:
    """A create that was not answered is repeated by the next create of the same messages, whatever the ids."""
    lost = records.create("a", whole=False)
    records.create("b", "another manual")
    again = records.create("c")
    assert list(repeats(records.calls)) == [(lost, again)]


def test_calls_at_once_are_no_repeats(records: Records) -> None:
    """A call that began before the other had ended, or on another context, repeats nothing; nor after one unread."""
    records.refused("one", ended=10)
    records.refused("two", ended=None)
    records.chat("one")
    records.chat("two")
    records.refused("three", context="d")
    records.chat("three")
    records.refused("", request=None)
    assert list(repeats(records.calls)) == []


def test_doubled_turns(records: Records) -> None:
    """A turn is doubled if the first was stored, the answer lost, and the repeat stored as well."""
    lost = records.chat("one", whole=False, status=None)
    again = records.chat("one")
    records.refused("two")
    records.chat("two")
    assert doubled_turns(records.calls) == [(lost, again)]


def test_lost_turns(records: Records) -> None:
    """A question is lost that was never stored, in a later turn or in the messages of a later context."""
    records.create("c")
    lost = records.refused("one")
    records.refused("two")
    records.chat("two", context="d")
    records.refused("three")
    records.refused("of a prefix", mode="common_prefix")
    records.refused("under way", ended=None)
    history = ContextRequest(model=MODEL, messages=[system("x"), user("three")])
    records.create("e", request=history)
    assert lost_turns(records.calls) == [lost]
