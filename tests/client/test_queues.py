"""ContextQueues: calls on one session context wait for each other, and nobody waits who need not."""

import asyncio

import pytest

from ctxcache import ContextBusyError, CtxCacheError, Limits, OutcomeUnknownError, SessionError, Timeouts
from ctxcache.client.queues import ContextQueues

from ..hostile import (
    CHAT,
    CLOSE,
    CONTEXT,
    CREATE,
    END,
    SSE,
    STALL,
    STORY,
    STORY_TEXT,
    after,
    answer,
    piece,
    pieces,
    refusal,
    streamed,
)

BUSY_TEXT = "The specified context is in invalid state: InProgress."
BUSY = [refusal(403, "OperationDenied.InvalidState", BUSY_TEXT)]


@pytest.fixture
def made(hostile, session):
    """A session that created the context `ctx-1`, of the mode asked for."""

    async def make(mode="session", **fields):
        hostile.plays([answer({**CONTEXT, "mode": mode, **fields})])
        await session.context.create(**CREATE, mode=mode)
        hostile.posts.clear()
        return session

    return make


def asking(text):
    """The arguments of a call that asks this."""
    return {**CHAT, "messages": [{"role": "user", "content": text}]}


def asked(hostile):
    """What was asked, in the order of arrival."""
    return [post.json["messages"][0]["content"] for post in hostile.posts]


async def a_while():
    """Let everything that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)


async def read(stream):
    """Read a stream to its end."""
    return "".join([text async for text in stream.text()])


async def test_calls_wait_in_order(hostile, made):
    """Overlapping calls on a session context reach the service one after the other, in the order they were made."""
    session = await made()
    go = [asyncio.Event() for _ in range(4)]
    hostile.plays(*[[after(event), answer()] for event in go])
    calls = [asyncio.ensure_future(session.chat.create(**asking(str(number)))) for number in range(4)]
    for number, event in enumerate(go):
        await hostile.until(lambda number=number: len(hostile.posts) == number + 1)
        await a_while()
        assert asked(hostile) == [str(n) for n in range(number + 1)]
        event.set()
    await asyncio.gather(*calls)
    assert session.holdings().get("queues", 0) == 0


@pytest.mark.parametrize("how", ["read", "close", "fail", "forget"])
async def test_streams_hold_the_turn(hostile, made, how):
    """A stream holds its turn until it is read, closed, broken or forgotten."""
    session = await made()
    go = asyncio.Event()
    rest = [CLOSE] if how == "fail" else [*pieces(*STORY[1:]), END]
    hostile.plays([SSE, piece(STORY[0]), after(go), *rest], [answer()])
    streams = [session.chat.stream(**asking("stream"))]
    await anext(streams[0])
    waiting = asyncio.ensure_future(session.chat.create(**asking("next")))
    await a_while()
    assert asked(hostile) == ["stream"]
    go.set()
    if how == "read":
        await read(streams[0])
    elif how == "fail":
        with pytest.raises(CtxCacheError):
            await read(streams[0])
    elif how == "close":
        await streams[0].aclose()
    else:
        streams.clear()
    assert (await waiting).text == "Hi"


@pytest.mark.parametrize("script", [[refusal(401)], [CLOSE], [answer(b"junk")], [b"junk\r\n\r\n", CLOSE]])
@pytest.mark.parametrize("stream", [False, True])
async def test_failures_give_the_turn_back(hostile, made, script, stream):
    """A call that fails gives back its turn."""
    session = await made()
    hostile.plays(script, [answer()])
    first = session.chat.stream(**CHAT).open() if stream else session.chat.create(**CHAT)
    first, second = asyncio.ensure_future(first), asyncio.ensure_future(session.chat.create(**CHAT))
    with pytest.raises(CtxCacheError):
        await first
    assert (await second).text == "Hi"


async def test_different_contexts_do_not_wait(hostile, session):
    """Calls on different contexts do not wait for each other."""
    go = asyncio.Event()
    hostile.plays(*[[after(go), answer()]] * 3)
    contexts = [{**CHAT, "context_id": f"ctx-{number}"} for number in range(3)]
    calls = [asyncio.ensure_future(session.chat.create(**context, serialize=True)) for context in contexts]
    await hostile.until(lambda: len(hostile.posts) == 3)
    assert session.holdings()["queues"] == 3
    go.set()
    await asyncio.gather(*calls)
    assert session.holdings().get("queues", 0) == 0


@pytest.mark.parametrize("case", ["prefix", "unknown", "serialize=False"])
async def test_who_does_not_wait(hostile, session, made, case):
    """Calls on a common prefix, on an unknown context, or with `serialize=False` run at once."""
    if case != "unknown":
        await made("common_prefix" if case == "prefix" else "session")
    options = {"serialize": False} if case == "serialize=False" else {}
    go = asyncio.Event()
    hostile.plays(*[[after(go), answer()]] * 5)
    calls = [asyncio.ensure_future(session.chat.create(**CHAT, **options)) for _ in range(5)]
    await hostile.until(lambda: len(hostile.posts) == 5)
    assert session.holdings().get("queues", 0) == 0
    go.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("case", ["prefix", "unknown"])
async def test_serialize(hostile, session, made, case):
    """`serialize=True` makes calls wait on whatever context."""
    if case == "prefix":
        await made("common_prefix")
    go = asyncio.Event()
    hostile.plays(*[[after(go), answer()]] * 2)
    calls = [asyncio.ensure_future(session.chat.create(**CHAT, serialize=True)) for _ in range(2)]
    await hostile.until(lambda: hostile.posts)
    await a_while()
    assert len(hostile.posts) == 1
    go.set()
    await asyncio.gather(*calls)


async def overlaps(hostile, session, context_id):
    """Whether two calls on this context run at once."""
    go, before = asyncio.Event(), len(hostile.posts)
    hostile.plays(*[[after(go), answer()]] * 2)
    calls = [asyncio.ensure_future(session.chat.create(**{**CHAT, "context_id": context_id})) for _ in range(2)]
    await hostile.until(lambda: len(hostile.posts) > before)
    for _ in range(10_000):  # the second call may need a new connection
        if (at_once := len(hostile.posts) - before) == 2:
            break
        await asyncio.sleep(0)
    go.set()
    await asyncio.gather(*calls)
    return at_once == 2


async def test_the_mode_the_service_says(hostile, session):
    """Which mode a context has is what the service answers; what was asked for where it does not say."""
    hostile.plays(
        [answer({"id": "a", "mode": "common_prefix"})],
        [answer({"id": "b"})],
        [answer({"id": "c"})],
        [answer({"id": "d", "mode": None})],
    )
    await session.context.create(**CREATE, mode="session")
    await session.context.create(**CREATE)
    await session.context.create(**CREATE, mode="common_prefix")
    await session.context.create(**CREATE, mode="common_prefix")
    assert [await overlaps(hostile, session, name) for name in "abcd"] == [True, False, True, True]


@pytest.mark.parametrize("busy", [BUSY, [refusal(403, "", BUSY_TEXT)]], ids=["code", "text"])
async def test_learned_from_the_service(hostile, session, held, busy):
    """A context that the service calls busy, by code or in words alone, is one whose calls wait from then on."""
    go = asyncio.Event()
    hostile.plays([after(go), answer()], *[busy] * 3)
    first = asyncio.ensure_future(session.chat.create(**CHAT))
    await hostile.until(lambda: hostile.posts)
    with pytest.raises(ContextBusyError) as caught:
        await session.chat.create(**CHAT)
    assert (caught.value.status, caught.value.attempts, len(hostile.posts)) == (403, 3, 4)
    go.set()
    await first
    go.clear()
    hostile.plays([after(go), answer()], [answer()])
    calls = [asyncio.ensure_future(session.chat.create(**CHAT)) for _ in range(2)]
    await hostile.until(lambda: len(hostile.posts) == 5)
    await a_while()
    assert len(hostile.posts) == 5
    go.set()
    await asyncio.gather(*calls)
    assert held(session) == {}


# --- holding a stream oneself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["create", "stream", "bare"])
async def test_own_stream(hostile, made, again):
    """A task that calls on the context whose stream it holds gets a `ContextBusyError` at once, and nothing is sent."""
    session = await made()
    hostile.plays([SSE, piece(STORY[0]), STALL])
    async with session.chat.stream(**CHAT) as stream:
        await anext(stream)
        call = {
            "create": lambda: session.chat.create(**CHAT),
            "stream": lambda: session.chat.stream(**CHAT).open(),
            "bare": lambda: read(session.chat.stream(**CHAT)),
        }[again]
        async with asyncio.timeout(1):
            with pytest.raises(ContextBusyError, match="ctx-1") as caught:
                await call()
    assert (caught.value.status, caught.value.attempts, len(hostile.posts)) == (None, 0, 1)
    hostile.plays([answer()])
    assert (await session.chat.create(**CHAT)).text == "Hi"


async def test_own_stream_overridden(hostile, made):
    """`serialize=False` asks the service all the same; what it refuses is repeated and then raised."""
    session = await made()
    hostile.plays([SSE, piece(STORY[0]), STALL], BUSY, BUSY, BUSY)
    async with session.chat.stream(**CHAT) as stream:
        await anext(stream)
        with pytest.raises(ContextBusyError) as caught:
            await session.chat.create(**CHAT, serialize=False)
    assert caught.value.status == 403
    assert len(hostile.posts) == 4


async def test_own_finished_stream(hostile, made):
    """A stream that was read to its end is held no more, though `async with` has not been left."""
    session = await made()
    hostile.plays([streamed()], [answer()])
    async with session.chat.stream(**CHAT) as stream:
        assert await read(stream) == STORY_TEXT
        assert (await session.chat.create(**CHAT)).text == "Hi"


async def test_waiting_calls_of_the_same_task(hostile, made):
    """Calls that a task makes in tasks of its own wait for the stream it holds: that is no deadlock."""
    session = await made()
    hostile.plays([SSE, piece(STORY[0]), STALL], [answer()])
    async with session.chat.stream(**CHAT) as stream:
        await anext(stream)
        other = asyncio.ensure_future(session.chat.create(**CHAT))
        await a_while()
        assert len(hostile.posts) == 1
    assert (await other).text == "Hi"


async def test_hand_over(hostile, made):
    """A stream opened in one task and read in another belongs to the reader: it is the one that must not call."""
    session = await made()
    go, reading = asyncio.Event(), asyncio.Event()
    hostile.plays([SSE, piece(STORY[0]), after(go), *pieces(*STORY[1:]), END], [answer()])
    stream = await session.chat.stream(**CHAT).open()

    async def reader():
        found = []
        async for text in stream.text():
            found.append(text)
            if not reading.is_set():
                with pytest.raises(ContextBusyError):
                    await session.chat.create(**CHAT)
            reading.set()
        return "".join(found)

    task = asyncio.ensure_future(reader())
    await reading.wait()
    waiting = asyncio.ensure_future(session.chat.create(**CHAT))  # in a task of its own, so that it can wait
    mine = session.chat.create(**CHAT, timeouts=Timeouts(total=0.02))
    with pytest.raises(CtxCacheError) as caught:
        await mine
    assert not isinstance(caught.value, ContextBusyError | OutcomeUnknownError)
    go.set()
    assert await task == STORY_TEXT
    assert (await waiting).text == "Hi"


async def test_opened_under_wait_for(hostile, made):
    """A stream opened in a short-lived task, as `asyncio.wait_for` makes one, and read here belongs to this task."""
    session = await made()
    hostile.plays([SSE, piece(STORY[0]), STALL])
    stream = await asyncio.ensure_future(session.chat.create(**CHAT, stream=True))
    async with asyncio.timeout(1):
        async for _ in stream:
            with pytest.raises(ContextBusyError):
                await session.chat.create(**CHAT)
            break
    await stream.aclose()


async def test_entered_after_wait_for(hostile, made):
    """Entering it is enough: the next call of this task on the context is refused at once, before anything is read."""
    session = await made()
    hostile.plays([SSE, piece(STORY[0]), STALL], [answer()])
    stream = await asyncio.wait_for(session.chat.create(**CHAT, stream=True), 5)
    async with stream, asyncio.timeout(1):
        with pytest.raises(ContextBusyError, match="this task itself") as caught:
            await session.chat.create(**CHAT)
    assert (caught.value.attempts, len(hostile.posts)) == (0, 1)
    assert (await session.chat.create(**CHAT)).text == "Hi"


# --- leaving the line -------------------------------------------------------------------------------------------------


async def test_cancelled_waiters(hostile, made):
    """Waiters that are cancelled leave the line; the others keep their order."""
    session = await made()
    go = asyncio.Event()
    hostile.plays([after(go), answer()], *[[answer()]] * 5)
    calls = [asyncio.ensure_future(session.chat.create(**asking(str(number)))) for number in range(6)]
    await hostile.until(lambda: hostile.posts)
    for number in (1, 3, 5):
        calls[number].cancel()
    go.set()
    await asyncio.wait(calls)
    assert asked(hostile) == ["0", "2", "4"]
    assert [call.cancelled() for call in calls] == [False, True] * 3


async def test_cancelled_as_its_turn_comes(hostile, made):
    """A waiter that is cancelled in the moment its turn comes passes it on."""
    session = await made()
    hostile.plays([SSE, STALL], [answer()])
    stream = await session.chat.stream(**CHAT).open()
    second, third = (asyncio.ensure_future(session.chat.create(**asking(name))) for name in ("second", "third"))
    await a_while()
    await stream.aclose()  # the second one's turn has come, and it has not run yet
    second.cancel()
    assert (await third).text == "Hi"
    assert asked(hostile) == ["Hello", "third"]
    assert second.cancelled()


async def test_total_limit_in_line(hostile, made):
    """The total limit counts the wait for a turn, and who gives up leaves the line."""
    session = await made()
    hostile.plays([SSE, STALL], [answer()])
    stream = await session.chat.stream(**CHAT).open()
    waiting = asyncio.ensure_future(session.chat.create(**CHAT, timeouts=Timeouts(total=0.02)))
    await asyncio.wait([waiting])
    assert waiting.exception().limit == "total"
    assert not waiting.exception().sent
    await stream.aclose()
    assert session.holdings().get("queues", 0) == 0
    assert (await session.chat.create(**CHAT)).text == "Hi"


async def test_closing_the_session(hostile, made):
    """`session.aclose()` gives all who wait in line a `SessionError`."""
    session = await made()
    hostile.plays([SSE, STALL])
    stream = await session.chat.stream(**CHAT).open()
    calls = [asyncio.ensure_future(session.chat.create(**CHAT)) for _ in range(3)]
    await a_while()
    await session.aclose()
    async with asyncio.timeout(1):
        for call in calls:
            with pytest.raises(SessionError):
                await call
    assert session.holdings().get("queues", 0) == 0
    assert len(hostile.posts) == 1
    assert stream is not None


async def test_a_waiter_takes_no_connection(hostile, session_for):
    """Who waits for its turn takes no slot of the pool: other contexts go on."""
    session = session_for(limits=Limits(connections=2))
    go = asyncio.Event()
    hostile.plays([after(go), answer()], [answer()], [answer()])
    calls = [asyncio.ensure_future(session.chat.create(**CHAT, serialize=True)) for _ in range(2)]
    await hostile.until(lambda: hostile.posts)
    assert (await session.chat.create(**{**CHAT, "context_id": "other"})).text == "Hi"
    go.set()
    await asyncio.gather(*calls)


def test_memory_is_bounded():
    """Of the contexts known as sessions the most recently used are remembered, and no more than a fixed number."""
    turns = ContextQueues()
    turns.mark_serial("old")
    turns.mark_serial("used")
    for number in range(16_382):
        turns.mark_serial(f"ctx-{number}")
    assert turns.is_serial("used")
    turns.mark_serial("new")
    turns.mark_serial("newer")
    assert (turns.is_serial("used"), turns.is_serial("new"), turns.is_serial("old")) == (True, True, False)
    assert [turns.is_serial(f"ctx-{number}") for number in (0, 1, 2, 16_381)] == [False, True, True, True]
