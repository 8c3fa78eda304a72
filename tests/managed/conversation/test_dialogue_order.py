"""Whose turn it is, and who leaves the line."""

import asyncio

import pytest

from ctxcache import APITimeoutError, ContextBusyError, Retry, Timeouts, user
from ctxcache.managed.conversation import Conversation

from ...hostile import DONE, END, SSE, STALL, after, chunk, piece, pieces
from .talk import BRIEF, GONE, a_while, made, read, said, says, streams, told


async def test_turns_are_in_order(hostile, new):
    """Overlapping turns wait for each other and are made in the order they were asked, streams among them."""
    go = [asyncio.Event() for _ in range(4)]
    hostile.plays(made(), *[[after(gate), *(streams("S") if n % 2 else says("A"))] for n, gate in enumerate(go)])
    conversation = new()
    asks = [
        conversation.ask("0"),
        read(conversation.stream("1")),
        conversation.ask("2"),
        read(conversation.stream("3")),
    ]
    tasks = [asyncio.ensure_future(ask) for ask in asks]
    for number, gate in enumerate(go):
        await hostile.until(lambda number=number: len(hostile.posts) == number + 2)
        await a_while()
        assert len(hostile.posts) == number + 2
        gate.set()
    await asyncio.gather(*tasks)
    assert [turn[0] for turn in said(conversation)] == ["0", "1", "2", "3"]
    assert [line[1] for line in told(hostile)[1:]] == ["u:0", "u:1", "u:2", "u:3"]


async def test_own_stream(hostile, new):
    """A task that holds a stream of the conversation open and asks gets a `ContextBusyError`, and no deadlock."""
    hostile.plays(made(), [SSE, piece(chunk("Once")), STALL])
    conversation = new()
    async with conversation.stream("1?") as stream:
        await anext(stream)
        for use in (
            lambda: conversation.ask("2?"),
            lambda: read(conversation.stream("2?")),
            lambda: conversation.resync(),
            lambda: conversation.warm(),
        ):
            async with asyncio.timeout(5):
                with pytest.raises(ContextBusyError, match="a stream of this conversation"):
                    await use()
    assert len(hostile.posts) == 2


async def test_own_stream_from_another_task(hostile, new):
    """The task that reads a stream holds it, not the one that opened it."""
    hostile.plays(made(), [SSE, piece(chunk("Once")), STALL])
    conversation = new()
    stream = await asyncio.ensure_future(conversation.stream("1?").open())
    async with asyncio.timeout(5):
        async for _ in stream:
            with pytest.raises(ContextBusyError):
                await conversation.ask("2?")
            break
        async with stream:
            with pytest.raises(ContextBusyError):
                await conversation.ask("2?")


async def test_cancelled_in_line(hostile, new):
    """Who is cancelled while it waits in line leaves it; nothing is in doubt, and the others are served."""
    go = asyncio.Event()
    hostile.plays(made(), [after(go), *says("A")], says("B"))
    conversation = new()
    asks = [conversation.ask("0"), conversation.ask("1"), read(conversation.stream("2")), conversation.ask("3")]
    tasks = [asyncio.ensure_future(ask) for ask in asks]
    await hostile.until(lambda: len(hostile.posts) == 2)
    tasks[1].cancel()
    tasks[2].cancel()
    go.set()
    await asyncio.wait(tasks)
    assert said(conversation) == [("0", "A", True), ("3", "B", True)]
    assert conversation.doubtful is None


async def test_cancelled_while_creating(hostile, new):
    """A turn cancelled while the context is created was not sent: nothing is in doubt."""
    hostile.plays([STALL])
    conversation = new()
    task = asyncio.ensure_future(conversation.ask("1?"))
    await hostile.until(lambda: hostile.posts)
    task.cancel()
    await asyncio.wait([task])
    hostile.plays(made(), says("Hi"))
    assert (await conversation.ask("1?")).text == "Hi"
    assert said(conversation) == [("1?", "Hi", True)]


async def test_cancelled_after_sending(hostile, new):
    """A turn cancelled after it may have been sent is doubtful."""
    hostile.plays(made(), [STALL])
    conversation = new()
    task = asyncio.ensure_future(conversation.ask("1?"))
    await hostile.until(lambda: len(hostile.posts) == 2)
    task.cancel()
    await asyncio.wait([task])
    assert (task.cancelled(), conversation.doubtful) == (True, (user("1?"),))


def by_question(connection):
    """Answer by what is asked, so that a request that was cancelled on its way takes no other one's answer."""
    server, asked = connection.server, connection.server.posts[-1].json
    if "context_id" not in asked:
        server.made += 1
        return made(f"ctx-{server.made}")
    question = asked["messages"][-1]["content"]
    if question == "1?" and asked["context_id"] == server.dead:
        return GONE
    if asked.get("stream"):
        return [SSE, *pieces(chunk("H"), chunk("i", finish="stop"), DONE), END]
    return says({"0?": "Zero", "1?": "Hi", "2?": "Yes"}[question])


async def answer_it(connection):
    """Play the answer."""
    await connection.play(by_question(connection))


@pytest.mark.parametrize("how", ["ask", "stream", "gone", "gone stream"])
async def test_cancelled_at_any_step(hostile, session_for, held, how, clock):
    """A turn cancelled at any step of the loop is not there, in doubt or unfinished; never lost, nor there twice."""
    hostile.made = 0
    for step in range(200):
        session = session_for(retry=Retry(attempts=1))
        conversation = Conversation(session, model="m", messages=BRIEF, clock=clock)
        hostile.plays(*[[answer_it]] * 20)
        hostile.dead = None
        await conversation.ask("0?")
        hostile.dead = conversation.context.id if "gone" in how else None
        turn = read(conversation.stream("1?")) if "stream" in how else conversation.ask("1?")
        task = asyncio.ensure_future(turn)
        for _ in range(step):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        await hostile.until(lambda session=session: held(session) == {})
        [zero, *rest] = said(conversation)
        assert zero == ("0?", "Zero", True)
        if conversation.doubtful is not None:
            assert (conversation.doubtful, rest, finished) == ((user("1?"),), [], False)
        else:
            assert rest in ([], [("1?", "H", False)], [("1?", "Hi", False)], [("1?", "Hi", True)])
            assert not finished or rest == [("1?", "Hi", True)]
        await conversation.resync()
        assert (await conversation.ask("2?")).text == "Yes"
        assert said(conversation)[-1] == ("2?", "Yes", True)
        await session.aclose()
        await hostile.until(lambda: not hostile.open)
        hostile.scripts.clear()
        if finished:
            break
    assert 3 < step < 199


@pytest.mark.parametrize("how", ["ask", "stream"])
@pytest.mark.parametrize("where", ["turn", "context"])
async def test_the_time_limit_includes_the_waits_before_sending(hostile, new, how, where):
    """For its turn, and for the context; nothing was sent, so nothing is in doubt."""
    go = asyncio.Event()
    hostile.plays([after(go), *made()], says("Hi"), says("Fine"))
    conversation = new()
    first = asyncio.ensure_future(conversation.ask("1?")) if where == "turn" else None
    if first is not None:
        await hostile.until(lambda: hostile.posts)
    limit = {"timeouts": Timeouts(total=0.05)}
    with pytest.raises(APITimeoutError, match=r"Timeouts\.total"):
        await (conversation.ask("2?", **limit) if how == "ask" else read(conversation.stream("2?", **limit)))
    go.set()
    assert conversation.doubtful is None
    if first is not None:
        await first
        assert said(conversation) == [("1?", "Hi", True)]
    else:
        assert said(conversation) == []
        await hostile.until(lambda: "pending" not in new.session.holdings())
