"""The prefixes of a proxy: which one a chat gets, and the budget."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from ctxcache import AsyncSession, ContextGoneError, Message, Prefix, user
from ctxcache.gateway import Gateway
from ctxcache.proxy.prefixes import HeldPrefix, Prefixes
from ctxcache.proxy.recognition import Chat, Registry, read_chat

from .conftest import MODEL, UPSTREAM_KEY, Clock, NotedEngine


def chat(*texts: str, marked: Sequence[int] = (1,), registry: Registry | None = None) -> Chat:
    """A chat of the user's messages, some of them marked."""
    messages: Any = [{"role": "user", "content": text} for text in texts]
    return read_chat({"model": MODEL, "messages": messages}, marked, registry or Registry())


@pytest.fixture
async def session(gateway: Gateway) -> AsyncIterator[AsyncSession]:
    """A session with the gateway."""
    async with AsyncSession(UPSTREAM_KEY, gateway.base_url) as session:
        yield session


class Table:
    """Makes tables of prefixes."""

    def __init__(self, session: AsyncSession, clock: Clock) -> None:
        self.session = session
        self.clock = clock
        self.made: list[tuple[Message, ...]] = []

    def make(self, model: str, messages: Sequence[Message]) -> Prefix:
        """Make a prefix, and note the messages."""
        self.made.append(tuple(messages))
        return Prefix(self.session, model=model, messages=messages, ttl=3600, clock=self.clock)

    def __call__(self, max_contexts: int = 9) -> Prefixes:
        """Make a table."""
        return Prefixes(self.make, max_contexts, self.clock)


@pytest.fixture
def table(session: AsyncSession, clock: Clock) -> Table:
    """Makes tables."""
    return Table(session, clock)


def chosen(prefixes: Prefixes, asked: Chat) -> HeldPrefix:
    """The prefix of a chat, which must have one."""
    held = prefixes.choose(asked)
    assert held is not None
    return held


async def test_one_prefix_for_each_beginning(table: Table) -> None:
    """Chats of one beginning share a prefix, whatever follows; a chat without a beginning has none."""
    prefixes = table()
    assert chosen(prefixes, chat("a", "b")) is chosen(prefixes, chat("a", "c", "d"))
    assert chosen(prefixes, chat("a", "b")) is not chosen(prefixes, chat("b", "a"))
    assert prefixes.choose(chat("a", "b", marked=())) is None
    assert table.made == [(user("a"),), (user("b"),)]


async def test_longest_with_a_context(table: Table) -> None:
    """The longest beginning with a context is used, before a longer one without; where none has, the longest."""
    prefixes = table()
    short = chosen(prefixes, chat("a", "b", "c"))
    assert chosen(prefixes, chat("a", "b", "c", marked=(1, 2))).length == 2
    await short.prefix.warm()
    assert chosen(prefixes, chat("a", "b", "c", marked=(1, 2))) is short
    longer = chosen(prefixes, chat("a", "b", "c", marked=(2,)))
    await longer.prefix.warm()
    assert chosen(prefixes, chat("a", "b", "c", marked=(1, 2))) is longer


async def test_budget(table: Table, clock: Clock) -> None:
    """A place of the budget is free when nobody uses the prefix and its context has ended, the oldest use first."""
    prefixes = table(2)
    first, second = chosen(prefixes, chat("a", "-")), chosen(prefixes, chat("b", "-"))
    await first.prefix.warm()
    with second.used():
        assert prefixes.choose(chat("c", "-")) is None
    await second.prefix.warm()
    assert prefixes.choose(chat("c", "-")) is None
    clock.now += 3600
    assert chosen(prefixes, chat("a", "-")) is first
    assert chosen(prefixes, chat("c", "-")) is not second
    assert chosen(prefixes, chat("a", "-")) is first
    assert chosen(prefixes, chat("b", "-")) is not second


async def test_a_create_under_way_keeps_its_place(table: Table, engine: NotedEngine) -> None:
    """The context of a chat that left during the create takes a place of the budget, though nobody uses the prefix."""
    prefixes = table(1)
    engine.may_prepare.clear()
    held = chosen(prefixes, chat("a", "-"))
    leaving = asyncio.create_task(held.prefix.warm())
    await engine.preparing.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    assert prefixes.choose(chat("b", "-")) is None
    engine.may_prepare.set()
    await held.prefix.warm()
    assert prefixes.choose(chat("b", "-")) is None
    assert len(engine.contexts) == 1


async def test_registered_ones_take_no_place(table: Table) -> None:
    """Registered beginnings have a prefix whatever the budget."""
    registry = Registry([(MODEL, [user("a")]), (MODEL, [user("b")])])
    prefixes = table(0)
    assert prefixes.choose(chat("c", "-")) is None
    assert all(prefixes.choose(chat(text, "-", marked=(), registry=registry)) for text in ("a", "b"))


async def test_refusal(table: Table, clock: Clock) -> None:
    """A refused beginning is left alone for a minute, and the refusal kept; a shorter one may serve meanwhile."""
    prefixes = table()
    asked, refusal = chat("a", "b", "c", marked=(1, 2)), ContextGoneError("no")
    prefixes.refuse(chosen(prefixes, asked), refusal)
    assert prefixes.refusal(asked.beginnings) is refusal
    assert chosen(prefixes, asked).length == 1
    assert prefixes.choose(chat("a", "b", "c", marked=(2,))) is None
    clock.now += 61
    assert prefixes.refusal(asked.beginnings) is None
    assert chosen(prefixes, asked).length == 2


async def test_a_kept_refusal_holds_no_frames(table: Table) -> None:
    """The refusal is kept without the traceback, whose frames hold the chat, and without other exceptions."""
    prefixes = table()
    asked = chat("a", "-")
    held = chosen(prefixes, asked)
    try:
        try:
            raise KeyError
        except KeyError:
            raise ContextGoneError("no")  # noqa: B904  # the context is what is tested
    except ContextGoneError as error:
        prefixes.refuse(held, error)
    kept = prefixes.refusal(asked.beginnings)
    assert kept is not None
    assert (kept.__traceback__, kept.__context__) == (None, None)


async def test_a_created_context_is_told_of_once(table: Table, clock: Clock) -> None:
    """Of the chats over a new context one is told so, and of its successor again."""
    held = chosen(table(), chat("a", "-"))
    assert not held.tell_created("ctx-0")
    first = (await held.prefix.warm()).id
    assert [held.tell_created(first) for _ in range(3)] == [True, False, False]
    clock.now += 4000
    second = (await held.prefix.warm()).id
    assert [held.tell_created(second) for _ in range(2)] == [True, False]
    assert not held.tell_created(first)
