"""Beginnings that many chats share."""

from hypothesis import given
from hypothesis import strategies as st

from ctxcache.proxy.learning import Learner


def test_learned_with_the_last_of_so_many_chats() -> None:
    """A beginning is learned with the M-th chat, and stays learned; others are counted apart."""
    learner = Learner(3, 1)
    assert [learner.learn([(b"a", 99), (b"b", 99)]) for _ in range(2)] == [set(), set()]
    assert learner.learn([(b"a", 99)]) == {b"a"}
    assert learner.learn([(b"a", 99), (b"b", 99)]) == {b"a", b"b"}


def test_short_beginnings_are_not_counted() -> None:
    """A beginning of fewer tokens is never learned."""
    learner = Learner(2, 10)
    learned = [learner.learn([(b"short", 39), (b"long", 40)]) for _ in range(3)]
    assert learned == [set(), {b"long"}, {b"long"}]


def test_counts_are_bounded() -> None:
    """Of more beginnings than the table takes, the one that was not seen for the longest time is counted anew."""
    learner = Learner(2, 1, capacity=2)
    for key in (b"a", b"b"):
        learner.learn([(key, 99)])
    assert learner.learn([(b"a", 99)]) == {b"a"}
    learner.learn([(b"c", 99)])
    assert learner.learn([(b"b", 99)]) == set()
    assert learner.learn([(b"c", 99)]) == {b"c"}


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=30), st.integers(2, 5))
def test_exact_within_capacity(keys: list[bytes], times: int) -> None:
    """Within the capacity every beginning is learned exactly when so many chats have had it."""
    learner = Learner(times, 1)
    for place, key in enumerate(keys, 1):
        assert learner.learn([(key, 4)]) == ({key} if keys[:place].count(key) >= times else set())
