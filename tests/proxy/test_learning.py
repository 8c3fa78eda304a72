"""Beginnings that many chats share."""

from hypothesis import given
from hypothesis import strategies as st

from ctxcache.proxy.learning import Learner

NEW = b"of one turn"


def test_learned_with_the_last_of_so_many_chats() -> None:
    """A beginning is learned with the M-th chat, and stays learned; others are counted apart."""
    learner = Learner(3, 1)
    assert [learner.learn([(b"a", 99), (b"b", 99)], NEW) for _ in range(2)] == [set(), set()]
    assert learner.learn([(b"a", 99)], NEW) == {b"a"}
    assert learner.learn([(b"a", 99), (b"b", 99)], NEW) == {b"a", b"b"}


def test_short_beginnings_are_not_counted() -> None:
    """A beginning of fewer tokens is never learned."""
    learner = Learner(2, 10)
    learned = [learner.learn([(b"short", 39), (b"long", 40)], NEW) for _ in range(3)]
    assert learned == [set(), {b"long"}, {b"long"}]
    assert [learner.learn([(b"short", 39)], NEW) for _ in range(3)] == [set()] * 3


def test_counts_are_bounded() -> None:
    """Of more beginnings than the table takes, the one that was not seen for the longest time is counted anew."""
    learner = Learner(2, 1, capacity=2)
    for key in (b"a", b"b"):
        learner.learn([(key, 99)], NEW)
    assert learner.learn([(b"a", 99)], NEW) == {b"a"}
    learner.learn([(b"c", 99)], NEW)
    assert learner.learn([(b"b", 99)], NEW) == set()
    assert learner.learn([(b"c", 99)], NEW) == {b"c"}


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=30), st.integers(2, 5))
def test_exact_within_capacity(keys: list[bytes], times: int) -> None:
    """Within the capacity every beginning is learned exactly when so many chats have had it."""
    learner = Learner(times, 1)
    for place, key in enumerate(keys, 1):
        assert learner.learn([(key, 4)], NEW) == ({key} if keys[:place].count(key) >= times else set())


def turns(name: str, number: int) -> list[tuple[list[tuple[bytes, int]], bytes]]:
    """The beginnings and the whole of each turn of a conversation with a shared system message."""
    keys = [b"system", *(f"{name} {turn}".encode() for turn in range(1, number + 1))]
    return [([(key, 99) for key in keys[: turn + 1]], keys[turn + 1]) for turn in range(number)]


def test_turns_of_one_conversation_count_once() -> None:
    """However long a conversation grows, that is one chat, of which nothing is learned; the third one is a third."""
    learner = Learner(3, 1)
    for name in ("a", "b"):
        assert [learner.learn(*turn) for turn in turns(name, 9)] == [set()] * 9
    assert [learner.learn(*turn) for turn in turns("c", 3)] == [{b"system"}] * 3


def test_branches_of_a_conversation_are_chats() -> None:
    """Of several chats that go on from the same one, each but the first is a chat of its own."""
    learner = Learner(3, 1)
    question = [(b"system", 99), (b"document", 99)]
    assert learner.learn(question[:1], b"document") == set()
    learned = [learner.learn(question, name) for name in (b"x", b"y", b"z")]
    assert learned == [set(), set(), {b"system", b"document"}]


def test_equal_first_turns_are_two_conversations() -> None:
    """Two chats that are the same word for word so far may both go on, and count twice."""
    learner = Learner(3, 1)
    for turn in turns("a", 4):
        assert [learner.learn(*turn) for _ in range(2)] == [set()] * 2


def test_remembered_chats_are_bounded() -> None:
    """A chat that goes on from one that was let go counts anew."""
    learner = Learner(2, 1, capacity=2)
    first, second, *_ = turns("a", 2)
    learner.learn(*first)
    for name in (b"x", b"y"):
        learner.learn([(name, 99)], name + b" whole")
    learner.learn([(b"system", 99)], b"other")
    assert learner.learn(*second) == {b"system"}
