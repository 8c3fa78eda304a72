"""The context window: what a session drops, and when."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache.config import UNSET
from ctxcache.errors import APIStatusError
from ctxcache.gateway.rules.sizes import SizedMessage
from ctxcache.gateway.rules.window import DEFAULT_STRATEGY, Window
from ctxcache.models import Message, TruncationStrategy, assistant, tool, user


def said(tokens: int) -> Message:
    """Return a question of so many tokens."""
    return user("x" * 4 * tokens)


def answered(tokens: int) -> Message:
    """Return an answer of so many tokens."""
    return assistant("y" * 4 * tokens)


def made(size: int, strategy: TruncationStrategy | None, initial: int) -> Window:
    """Return a window whose initial message has so many tokens."""
    return Window(size, strategy, [SizedMessage.of(said(initial))])


def window(size: int, initial: int = 2, **strategy: Any) -> Window:
    """Return a session's window."""
    return made(size, TruncationStrategy(**strategy) if strategy else DEFAULT_STRATEGY, initial)


def turn(window: Window, question: int, answer: int) -> bool:
    """Store a turn; return whether the window rolled."""
    return window.store([SizedMessage.of(said(question)), SizedMessage.of(answered(answer))])


def held(window: Window) -> list[int]:
    """Return the tokens of each message of the history."""
    return [sized.tokens for sized in window.history]


def test_what_fits_is_kept_and_cached() -> None:
    """A call sees the whole context, and a reply may fill the rest of the window beside the initial messages."""
    session = window(20)
    assert not turn(session, 3, 4)
    plan = session.plan(1)
    assert (plan.dropped, plan.kept, plan.room) == (0, 9, 17)
    assert session.messages() == (said(2), said(3), answered(4))
    assert session.tokens == 9


def test_rolling_drops_the_oldest_block_and_computes_the_rest_anew() -> None:
    """A question that does not fit drops the oldest block, and the turn has rolled."""
    session = window(20)
    for _ in range(3):
        assert not turn(session, 1, 4)
    plan = session.plan(4)  # 2 + 15 + 4 + 1 are two too many: a block is 5
    assert (plan.dropped, plan.kept, plan.room) == (2, 12, 14)
    assert session.messages(plan.dropped) == (said(2), *[said(1), answered(4)] * 2)
    assert held(session) == [1, 4] * 3, "a plan changes nothing"
    assert turn(session, 4, 4)
    assert held(session) == [1, 4, 1, 4, 4, 4]


def test_a_block_is_a_quarter_of_the_window() -> None:
    """Without `rolling_window_tokens` a block is a quarter of the window."""
    session = window(20)
    for _ in range(8):
        turn(session, 1, 1)
    assert session.plan(1).dropped == 0, "18 + 1, and 1 for the reply"
    assert session.plan(2).dropped == 5, "for the one that is too many"


def test_a_block_is_as_large_as_asked_for() -> None:
    """`rolling_window_tokens` is the size of the dropped block."""
    session = window(20, type="rolling_tokens", rolling_window_tokens=11)
    for _ in range(3):
        turn(session, 1, 4)
    assert session.plan(4).dropped == 5  # 1 + 4 + 1 + 4 + 1


def test_a_block_never_takes_more_than_there_is() -> None:
    """A block larger than the history is the whole history."""
    session = window(20, type="rolling_tokens", rolling_window_tokens=1000)
    turn(session, 1, 14)
    plan = session.plan(4)
    assert (plan.dropped, plan.kept) == (2, 2)


def test_a_long_reply_rolls_too_but_not_over_its_own_turn() -> None:
    """A reply that overruns the window drops old turns, never its own, and the turn has rolled."""
    session = window(20)
    turn(session, 1, 4)
    assert turn(session, 1, 17), "the most it may have: 20 - 2 - 1"
    assert held(session) == [1, 17]


def test_max_window_tokens_makes_the_window_smaller_only() -> None:
    """The smaller of the model's window and `max_window_tokens` counts."""
    assert window(20, type="rolling_tokens", max_window_tokens=10).size == 10
    assert window(20, type="rolling_tokens", max_window_tokens=30).size == 20


def test_last_history_tokens_keeps_the_newest() -> None:
    """The history never exceeds N tokens: the oldest messages go first, the rest stays cached."""
    session = window(100, type="last_history_tokens", last_history_tokens=6)
    assert not turn(session, 2, 2)
    assert not turn(session, 1, 2)
    assert held(session) == [2, 1, 2]
    assert session.plan(1).kept == 7


def test_last_history_tokens_of_none_that_fits_keeps_nothing() -> None:
    """A turn larger than N is dropped at once; the initial messages stay."""
    session = window(100, type="last_history_tokens", last_history_tokens=1)
    turn(session, 2, 2)
    assert session.messages() == (said(2),)


def test_last_history_tokens_gives_way_to_the_window() -> None:
    """An N beyond the window keeps what fits the window, and drops no more than needed for a question."""
    session = window(20, type="last_history_tokens", last_history_tokens=4096)
    turn(session, 4, 4)
    turn(session, 4, 10)
    assert held(session) == [4, 4, 10], "18 beside the initial 2"
    plan = session.plan(5)
    assert (plan.dropped, plan.kept, plan.room) == (2, 12, 13)


def test_without_rolling_the_reply_stops_at_the_end() -> None:
    """`rolling_tokens: false` drops nothing and leaves a reply the rest of the window."""
    session = window(20, type="rolling_tokens", rolling_tokens=False)
    assert session.plan(3).room == 15
    turn(session, 3, 10)
    assert session.plan(3).room == 2
    assert not turn(session, 3, 2)
    assert held(session) == [3, 10, 3, 2]


def test_a_full_session_without_rolling_has_no_room() -> None:
    """Once the question does not fit, there is no room and no reply."""
    session = window(20, type="rolling_tokens", rolling_tokens=False)
    turn(session, 3, 15)
    plan = session.plan(1)
    assert (plan.room, plan.kept, plan.dropped) == (0, 20, 0)


def test_a_prefix_leaves_the_rest_of_the_window() -> None:
    """A common prefix has no strategy: the reply stops at the end of the window."""
    prefix = made(20, None, 5)
    assert (prefix.plan(3).kept, prefix.plan(3).room, prefix.plan(14).room) == (5, 12, 1)


@pytest.mark.parametrize("strategy", [None, DEFAULT_STRATEGY, TruncationStrategy(type="last_history_tokens")])
def test_what_fits_in_no_way_is_refused(strategy: TruncationStrategy | None) -> None:
    """Initial messages or a question without room for a reply are refused with 400 `OutofContextError`."""
    with pytest.raises(APIStatusError) as refused:
        made(20, strategy, 20)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "OutofContextError", "messages")
    nearly = made(20, strategy, 10)
    assert nearly.plan(9).room == 1
    with pytest.raises(APIStatusError, match="20 tokens"):
        nearly.plan(10)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (TruncationStrategy(type="rolling_tokens"), DEFAULT_STRATEGY),
        (
            TruncationStrategy(type="rolling_tokens", rolling_tokens=False, last_history_tokens=5),
            TruncationStrategy(type="rolling_tokens", rolling_tokens=False),
        ),
        (
            TruncationStrategy(type="last_history_tokens", rolling_tokens=True, rolling_window_tokens=7),
            TruncationStrategy(type="last_history_tokens", last_history_tokens=4096),
        ),
        (
            TruncationStrategy(type="last_history_tokens", last_history_tokens=7, max_window_tokens=90),
            TruncationStrategy(type="last_history_tokens", last_history_tokens=7, max_window_tokens=90),
        ),
    ],
)
def test_a_strategy_is_filled_in(given: TruncationStrategy, shown: TruncationStrategy) -> None:
    """A strategy gets the service's defaults, and loses the fields of other types."""
    assert made(100, given, 1).strategy == shown


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "last_history_tokens", "last_history_tokens": 30},
        {"type": "rolling_tokens", "rolling_tokens": True, "rolling_window_tokens": 1},
    ],
)
def test_results_of_tools_go_with_their_call(strategy: dict[str, Any]) -> None:
    """A model refuses a result without its call: no history begins with one, in the plan and after the turn."""
    session = window(34, **strategy)
    calling = assistant(None, [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 40}}])
    results = [tool("x" * 16, tool_call_id="c") for _ in range(2)]
    session.store([SizedMessage.of(message) for message in (said(1), calling, *results, answered(2))])
    plan = session.plan(15)
    assert plan.dropped == 4, "the question, the call and both of its results"
    assert [message.role for message in session.messages(plan.dropped)] == ["user", "assistant"]
    session.store([SizedMessage.of(message) for message in (said(14), answered(1))])
    assert [message.role for message in session.messages()] == ["user", "assistant", "user", "assistant"]


strategies = st.one_of(
    st.builds(
        TruncationStrategy,
        type=st.just("last_history_tokens"),
        last_history_tokens=st.integers(1, 40),
        max_window_tokens=st.integers(10, 40),
    ),
    st.builds(
        TruncationStrategy,
        type=st.just("rolling_tokens"),
        rolling_tokens=st.booleans(),
        rolling_window_tokens=st.one_of(st.just(UNSET), st.integers(1, 40)),
    ),
)


@given(strategies, st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), max_size=12))
def test_whatever_is_said_the_window_holds(strategy: TruncationStrategy, turns: list[tuple[int, int]]) -> None:
    """The messages held fit the window, are the first and the last of the conversation, and match the plan."""
    session = made(30, strategy, 2)
    everything: list[int] = []
    for question, length in turns:
        if question + 2 >= session.size:
            continue
        plan = session.plan(question)
        assert plan.kept == 2 + sum(held(session)[plan.dropped :])
        assert plan.kept + question < session.size or plan.room == 0
        before = session.tokens
        answer = min(length, plan.room)
        if plan.room:
            rolled = turn(session, question, answer)
            everything += [question, max(1, answer)]
            assert rolled == (
                session.strategy.type == "rolling_tokens" and session.tokens < before + sum(everything[-2:])
            )
            assert rolled or not plan.dropped or session.strategy.type == "last_history_tokens"
        assert session.tokens <= session.size
        assert session.tokens == 2 + sum(held(session))
        assert held(session) == everything[len(everything) - len(session.history) :]
        assert session.messages()[0] == said(2)
        assert session.memory == sum(SizedMessage.of(message).memory for message in session.messages())
