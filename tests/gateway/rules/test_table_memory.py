"""What a table keeps is counted, bounded and given back."""

import gc
from typing import Any
from weakref import ref

import pytest

from ctxcache.errors import QuotaExceededError
from ctxcache.gateway.rules import sizes
from ctxcache.gateway.rules.quota import Quota
from ctxcache.gateway.rules.served import AcceptedChat, ServedContext
from ctxcache.gateway.rules.table import ContextTable
from ctxcache.models import ChatRequest, ContextRequest, Message, system, user

HOUR = 3600


@pytest.fixture
def quota() -> Quota:
    """A quota of 20,000 bytes, 10,000 for each context."""
    return Quota(max_memory=20_000, max_context_memory=10_000)


@pytest.fixture
def table(clock: Any, quota: Quota) -> ContextTable:
    """A table for one model with a window of 100 tokens."""
    numbers = iter(range(10**6))
    return ContextTable({"m": 100}, clock, lambda _: next(numbers), quota)


class Cycle:
    """An object that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


def create(table: ContextTable, size: int = 0, **fields: Any) -> ServedContext:
    """Create a context with a message of a little more than `size` bytes, and 1 token."""
    message = Message("system", "abcd", {"name": "x" * size} if size else {})
    return table.create(ContextRequest(**{"model": "m", "messages": [message], "ttl": HOUR, **fields}))


def begin(table: ContextTable, context: ServedContext, size: int = 0) -> AcceptedChat:
    """Begin a chat with a question of a little more than `size` bytes."""
    question = Message("user", "abcd", {"name": "x" * size} if size else {})
    return table.begin(ChatRequest(context_id=context.id, model="m", messages=[question]))


def answer(chat: AcceptedChat, text: str = "abcd") -> None:
    """Complete a chat."""
    chat.replies[0].feed(text)
    chat.replies[0].end()
    chat.complete()


def test_a_field_that_has_no_tokens_is_bounded(table: ContextTable, quota: Quota) -> None:
    """A message of one token and many bytes is refused beyond the bound of a context, and nothing stays."""
    with pytest.raises(QuotaExceededError, match="10000 bytes of memory"):
        create(table, 10_000)
    assert (quota.contexts, quota.memory) == (0, 0)


def test_many_messages_keep_no_garbage(clock: Any) -> None:
    """Whatever is stored, the garbage collector goes on to free other objects, and looks at one object a message."""
    table = ContextTable({"m": 1_000_000}, clock, lambda _: 0, Quota())
    cycle = Cycle()
    left = ref(cycle)
    context = table.create(ContextRequest(model="m", messages=[user("x")] * 20_000))
    answer(table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("x")])))
    del cycle
    gc.collect()
    assert left() is None
    assert len(context.window.history) == 2
    assert not any(gc.is_tracked(stored) for stored in context.window.history)


def test_a_prefix_answers_beyond_the_bound(table: ContextTable, quota: Quota) -> None:
    """A chat on a prefix stores nothing, and so is accepted after a reply to a session has passed the bound."""
    prefix = create(table, 9_000, mode="common_prefix")
    session = create(table, 8_000)
    answer(begin(table, session), "x" * 90)
    quota.max_memory = quota.memory - 1
    with pytest.raises(QuotaExceededError):
        begin(table, session)
    answer(begin(table, prefix, 100))
    with pytest.raises(QuotaExceededError):
        create(table)


def test_all_contexts_together_are_bounded(table: ContextTable, quota: Quota, clock: Any) -> None:
    """Contexts within their own bound are refused beyond the bound in sum, until one has expired."""
    create(table, 8_000)
    create(table, 8_000, ttl=2 * HOUR)
    with pytest.raises(QuotaExceededError, match="All contexts together may take 20000 bytes"):
        create(table, 8_000)
    clock.now += HOUR
    create(table, 8_000)
    assert quota.contexts == 2


def test_a_history_cannot_grow_beyond_the_bound(table: ContextTable, quota: Quota) -> None:
    """A question is refused that would let the context grow beyond the bound; the context stays as it was."""
    context = create(table, 4_000)
    answer(begin(table, context, 3_500))
    held = context.window.memory
    with pytest.raises(QuotaExceededError, match="The messages of a context may take 10000 bytes"):
        begin(table, context, 4_000)
    assert (context.running, context.window.memory, quota.memory) == (0, held, held)
    answer(begin(table, context))
    assert quota.memory == context.window.memory > held


def test_questions_under_way_count(table: ContextTable, quota: Quota) -> None:
    """Questions on several sessions at once cannot pass the bound together; an abandoned question counts no more."""
    contexts = [create(table, 2_000) for _ in range(3)]
    begun = begin(table, contexts[0], 6_000)
    begin(table, contexts[1], 4_000)
    with pytest.raises(QuotaExceededError, match="All contexts together"):
        begin(table, contexts[2], 4_000)
    begun.abandon()
    begin(table, contexts[2], 4_000)
    assert quota.memory < 20_000


def test_a_prefix_keeps_no_question(table: ContextTable, quota: Quota) -> None:
    """A question on a common prefix does not stay, and does not count."""
    context = create(table, 4_000, mode="common_prefix")
    before = quota.memory
    answer(begin(table, context, 3_000))
    assert quota.memory == before == context.window.memory


@pytest.mark.parametrize("complete", [True, False])
def test_a_context_that_ended_during_a_call_counts_nothing(table: ContextTable, quota: Quota, complete: bool) -> None:
    """A turn stored in a context that is gone is not counted."""
    context = create(table, 4_000)
    chat = begin(table, context, 3_000)
    table.expire(context.id)
    if complete:
        answer(chat)
    else:
        chat.abandon()
    assert (quota.contexts, quota.memory) == (0, 0)


def test_dropped_messages_give_their_memory_back(table: ContextTable, quota: Quota) -> None:
    """However long a session lasts, the count is the memory of the messages held."""
    context = create(table)
    for _ in range(60):
        answer(begin(table, context), "abcd" * 9)
    assert len(context.window.history) < 40
    assert quota.memory == context.window.memory


def test_each_message_is_counted_once(table: ContextTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the create to the stored turn every message is counted once, the reply while the engine writes."""
    counted: list[str] = []
    count = sizes.count_tokens
    monkeypatch.setattr(sizes, "count_tokens", lambda text: counted.append(text) or count(text))
    context = table.create(ContextRequest(model="m", messages=[system("one"), user("two")]))
    answer(table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("three"), user("four")])), "five")
    answer(table.begin(ChatRequest(context_id=context.id, model="m", messages=[user("six")])), "seven")
    assert counted == ["one", "two", "three", "four", "six"]


def test_many_contexts_that_expire_together_are_removed_by_and_by(clock: Any) -> None:
    """One call removes a limited number; an expired context is gone at once all the same."""
    numbers, quota = iter(range(100)), Quota()
    table = ContextTable({"m": 100}, clock, lambda _: next(numbers), quota, removed_at_once=10)
    contexts = [create(table) for _ in range(20)]
    clock.now += HOUR
    assert table.get(contexts[19].id) is None
    assert quota.contexts == 15, "a context and a message each"
    for context in contexts[17:]:
        assert table.get(context.id) is None
    assert quota.contexts == 0
