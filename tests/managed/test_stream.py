"""A managed stream: used like any other, begun again where its context was gone, its owner told once how it ended."""

import asyncio
import gc
import threading

import pytest

from ctxcache import (
    AuthenticationError,
    ChatCompletion,
    ContextBusyError,
    ContextGoneError,
    OutcomeUnknownError,
    SessionError,
    StreamInterruptedError,
)
from ctxcache.managed import ManagedStream, MemoryStore

from .service import TEXT, WORDS


async def read(stream):
    """The text of a stream, read to its end."""
    return "".join([text async for text in stream.text()])


class Owner:
    """An owner of one stream, on a context of its own.

    Attributes:
        ends: what `ended` was called with, and in which thread.
        failures: what `again` was called with.
        spare: how many streams `again` gives in place of one that failed, each on a new context.
    """

    def __init__(self, session):
        self.session = session
        self.spare = 0
        self.options = {}
        self.ends = []
        self.failures = []

    async def begin(self):
        """Make a context, and stream on it."""
        question = [{"role": "user", "content": "?"}]
        context = await self.session.context.create(model="m", messages=question, mode="common_prefix")
        where = {"context_id": context.id, "model": "m", "messages": question}
        return await self.session.chat.stream(**where, **self.options).open()

    async def again(self, error):
        """Do so again, if there is one to spare."""
        self.failures.append(error)
        if not self.spare:
            return None
        self.spare -= 1
        return await self.begin()

    async def settled(self):
        """Nothing to settle."""

    def hold_here(self):
        """Nothing waits for it."""

    def ended(self, stream, error):
        """Note it."""
        self.ends.append((stream, error, threading.get_ident()))

    @property
    def end(self):
        """The one end."""
        [(stream, error, thread)] = self.ends
        assert thread == threading.get_ident()
        return stream, error


@pytest.fixture
def owner(session):
    """An owner."""
    return Owner(session)


# --- used like a ChatStream


async def test_it_is_used_like_a_chat_stream(owner, service):
    """All that a `ChatStream` has, it has."""
    stream = ManagedStream(owner)
    assert (stream.done, stream.usage, stream.request_id, stream.log_id, stream.client_request_id) == (
        (False, None, None, None, None)
    )
    assert stream.partial() == ChatCompletion()
    async with stream as entered:
        assert entered is stream
        assert await stream.open() is stream
        texts = []
        async for chunk in stream:
            texts.append(chunk.text)
            assert not stream.done
    assert "".join(texts) == TEXT
    assert stream.done
    assert stream.usage.prompt_tokens == 110
    assert stream.completion().text == stream.partial().text == TEXT
    assert len(stream.client_request_id) == 32
    assert (stream.request_id, stream.log_id) == (None, None)
    inner, error = owner.end
    assert (inner.done, error) == (True, None)


async def test_it_may_be_iterated_straight(owner):
    """Without `async with`; and once more, which gives nothing."""
    stream = ManagedStream(owner)
    assert await read(stream) == TEXT
    assert await read(stream) == ""
    assert owner.end[1] is None


async def test_nothing_is_sent_before_it_is_used(owner, service):
    """Nor is the owner told of the end of what never began."""
    stream = ManagedStream(owner)
    await stream.aclose()
    with pytest.raises(SessionError, match="closed"):
        await stream.open()
    del stream
    ManagedStream(owner)
    gc.collect()
    await asyncio.sleep(0)
    assert (service.chats, owner.ends) == ([], [])


async def test_half_an_answer_is_no_answer(owner, service):
    """`completion` raises before the end, and before the beginning."""
    service.streaming.clear()
    stream = ManagedStream(owner)
    with pytest.raises(StreamInterruptedError, match="not been opened"):
        stream.completion()
    async with stream:
        await anext(stream)
        with pytest.raises(StreamInterruptedError):
            stream.completion()
        assert stream.partial().text == WORDS[0]


async def test_one_task_reads_it_at_a_time(owner, service, until):
    """A second one is refused, and does the first no harm; likewise while it is opened."""
    service.chatting.clear()
    stream = ManagedStream(owner)
    reading = asyncio.create_task(read(stream))
    await until(lambda: service.waiting)
    with pytest.raises(SessionError, match="opening"):
        await anext(stream)
    service.streaming.clear()
    service.chatting.set()
    await until(lambda: stream.partial().text == WORDS[0])
    with pytest.raises(SessionError, match="reading"):
        await anext(stream)
    service.streaming.set()
    assert await reading == TEXT
    assert owner.end[1] is None


# --- however it ends, the owner is told once


async def test_left_in_the_middle(owner, service, held, session):
    """Closed by its reader: no error, and not done."""
    service.streaming.clear()
    async with ManagedStream(owner) as stream:
        async for _ in stream:
            break
    inner, error = owner.end
    assert (inner.done, inner.partial().text, error) == (False, WORDS[0], None)
    assert held(session) == {}
    with pytest.raises(StreamInterruptedError):
        await anext(stream)
    await stream.aclose()
    assert owner.end == (inner, None)


async def test_cancelled_in_the_middle(owner, service, until, held, session):
    """The cancellation goes on, and is what the owner is told."""
    service.streaming.clear()
    stream = ManagedStream(owner)
    reading = asyncio.create_task(read(stream))
    await until(lambda: stream.partial().text)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert isinstance(owner.end[1], asyncio.CancelledError)
    assert held(session) == {}


async def test_forgotten_in_the_middle(owner, service, until, held, session):
    """Garbage-collected in whichever thread, it tells its owner in that of the event loop, and frees its connection."""
    service.streaming.clear()
    stream = ManagedStream(owner)
    await anext(stream)
    box = [stream]
    del stream
    thread = threading.Thread(target=box.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    await until(lambda: owner.ends)
    inner, error = owner.end
    assert (inner.partial().text, error) == (WORDS[0], None)
    owner.ends.clear()
    del inner
    await until(lambda: held(session) == {})


async def test_forgotten_after_its_loop_is_closed(owner, service):
    """There is nobody to tell any more, and nothing is raised."""

    class Opened:
        ended = None

        async def begin(self):
            return object()

    stream = ManagedStream(Opened())
    await asyncio.to_thread(asyncio.run, stream.open())
    del stream
    gc.collect()


async def test_an_error_that_came_in_the_middle(owner, service):
    """It is raised with what came, once and again, and told."""
    service.fate("cut")
    stream = ManagedStream(owner)
    for _ in range(2):
        with pytest.raises(StreamInterruptedError) as caught:
            await read(stream)
        assert caught.value.partial.text == WORDS[0]
    assert owner.end[1] is caught.value
    assert owner.failures == []


async def test_an_error_at_the_head(owner, service):
    """It is raised once and again; no second stream is asked for."""
    service.fate("gone")
    stream = ManagedStream(owner)
    for _ in range(2):
        with pytest.raises(ContextGoneError) as caught:
            await read(stream)
    assert owner.end == (None, caught.value)
    assert (len(service.chats), owner.failures) == (1, [])


async def test_closed_by_another_task_while_it_is_opened(owner, service, until, held, session):
    """Who opens it is woken with an error that does not say that nothing was sent."""
    service.chatting.clear()
    stream = ManagedStream(owner)
    opening = asyncio.create_task(stream.open())
    await until(lambda: service.waiting)
    await stream.aclose()
    with pytest.raises(StreamInterruptedError, match="closed while it was being opened"):
        await opening
    assert not opening.cancelled()
    assert opening.cancelling() == 0
    stream_told, error = owner.end
    assert (stream_told, type(error)) == (None, StreamInterruptedError)
    assert held(session) == {}


@pytest.mark.parametrize("how", ["enter", "iterate"])
async def test_read_by_another_task_than_the_one_that_opened_it(owner, service, session, how):
    """On a context whose calls wait for each other, the next call of the reader is refused: it would wait for ever."""
    owner.options = {"serialize": True}
    stream = ManagedStream(owner)
    await asyncio.create_task(stream.open())
    if how == "enter":
        await stream.__aenter__()
    else:
        aiter(stream)
    question = [{"role": "user", "content": "?"}]
    async with asyncio.timeout(1):
        with pytest.raises(ContextBusyError, match="this task itself"):
            await session.chat.create(context_id="ctx-1", model="m", messages=question, serialize=True)
    await stream.aclose()


async def test_closed_and_cancelled_while_it_is_opened(owner, service, until):
    """The cancellation is not lost."""
    service.chatting.clear()
    stream = ManagedStream(owner)
    opening = asyncio.create_task(stream.open())
    await until(lambda: service.waiting)
    await stream.aclose()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert isinstance(owner.end[1], asyncio.CancelledError)


async def test_closed_by_another_task_while_it_is_read(owner, service, until):
    """The reader is woken with what came; nothing is begun again, were it before the first chunk."""
    owner.spare = 1
    service.streaming.clear()
    stream = ManagedStream(owner)
    reading = asyncio.create_task(read(stream))
    await until(lambda: stream.partial().text)
    await stream.aclose()
    with pytest.raises(StreamInterruptedError):
        await reading
    assert owner.end[1] is None
    assert (len(service.chats), owner.failures) == (1, [])


# --- begun again


async def test_a_failure_before_the_first_chunk_may_be_made_good(owner, service):
    """The owner is asked for another stream, and the reader notices nothing."""
    owner.spare = 1
    service.fate("late")
    async with ManagedStream(owner) as stream:
        assert await read(stream) == TEXT
    assert [type(error) for error in owner.failures] == [ContextGoneError]
    assert owner.end[1] is None
    assert len(service.chats) == 2


async def test_where_the_owner_has_no_other_the_error_is_raised(owner, service):
    """With an empty `partial`, once and again."""
    service.fate("late")
    stream = ManagedStream(owner)
    for _ in range(2):
        with pytest.raises(ContextGoneError) as caught:
            await read(stream)
    assert caught.value.partial.text == ""
    inner, error = owner.end
    assert error is caught.value
    assert inner.done is False
    assert len(owner.failures) == 1


async def test_the_other_stream_fails_to_open(owner, service):
    """Then that is the error."""
    owner.spare = 1
    service.fate("late", "gone")
    with pytest.raises(ContextGoneError) as caught:
        await read(ManagedStream(owner))
    assert owner.end[1] is caught.value
    assert caught.value is not owner.failures[0]


# --- a Prefix's streams


async def test_gone_between_head_and_first_chunk(prefix, service, told):
    """The context is made anew, and the call repeated: the text comes once."""
    service.fate("late")
    async with prefix.stream("?") as stream:
        assert await read(stream) == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})
    assert (told[1][1].old_id, told[1][1].reason) == ("ctx-1", "gone")
    assert prefix.usage.prompt_tokens == 310


async def test_gone_in_the_middle(prefix, service, clock):
    """What was delivered is not repeated: the error is raised with it, and the next call makes a new context."""
    await prefix.warm()
    service.fate("middle")
    with pytest.raises(ContextGoneError) as caught:
        await read(prefix.stream("?"))
    assert caught.value.partial.text == WORDS[0]
    assert (len(service.creates), len(service.chats), prefix.context) == (1, 1, None)
    assert await read(prefix.stream("?")) == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})


@pytest.mark.parametrize("fates", [("late", "late"), ("gone", "late"), ("late", "gone"), ("gone", "gone")])
async def test_gone_twice_is_the_end(prefix, service, fates):
    """Wherever it shows: two creates and two POSTs, then the error."""
    service.fate(*fates)
    with pytest.raises(ContextGoneError):
        await read(prefix.stream("?"))
    assert (len(service.creates), len(service.chats), prefix.context) == (2, 2, None)


@pytest.mark.parametrize("fates", [("late", "late", "fine"), ("gone", "late", "fine"), ("late", "gone", "late")])
async def test_gone_twice_with_one_adopted(prefix_for, service, fates):
    """The third and last POST is on a context created for it."""
    store = MemoryStore()
    one, two = prefix_for(store=store), prefix_for(store=store)
    await one.warm()
    service.expire()
    await two.ask("?")  # which puts another in its place
    service.chats.clear()
    service.fate(*fates)
    stream = one.stream("?")
    if fates[-1] == "fine":
        assert await read(stream) == TEXT
    else:
        with pytest.raises(ContextGoneError):
            await read(stream)
    assert (len(service.creates), len(service.chats)) == (3, 3)


async def test_a_cut_stream_is_not_repeated(prefix, service):
    """Its context is as good as before."""
    service.fate("cut")
    with pytest.raises(StreamInterruptedError):
        await read(prefix.stream("?"))
    assert (len(service.chats), prefix.context.id) == (1, "ctx-1")


async def test_another_error_before_the_first_chunk_is_raised(prefix, service):
    """Only what says that the context is gone is repeated here."""
    await prefix.warm()
    service.fate("forbidden")
    with pytest.raises(AuthenticationError):
        await read(prefix.stream("?"))
    assert len(service.chats) == 1


async def test_fifty_streams_make_one_context(prefix, service):
    """Begun at once, and found gone at once."""
    assert await asyncio.gather(*(read(prefix.stream("?")) for _ in range(50))) == [TEXT] * 50
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 50})


@pytest.mark.parametrize("moment", ["creating", "chatting", "streaming"])
async def test_a_prefix_s_stream_is_cancelled_at_any_moment(prefix, service, session, held, until, moment):
    """Nothing is left over, and the next call goes well."""
    gate = getattr(service, moment)
    gate.clear()
    stream = prefix.stream("?")
    reading = asyncio.create_task(read(stream))
    reached = {
        "creating": lambda: service.creates,
        "chatting": lambda: service.waiting,
        "streaming": lambda: stream.partial().text,
    }
    await until(reached[moment])
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    gate.set()
    assert await read(prefix.stream("?")) == TEXT
    assert held(session) == {}


@pytest.mark.parametrize("moment", ["creating", "chatting"])
async def test_a_prefix_s_stream_is_closed_while_it_is_opened(prefix, service, session, held, until, moment):
    """Its opener is woken; nothing is left over, and the next call goes well."""
    gate = getattr(service, moment)
    gate.clear()
    stream = prefix.stream("?")
    opening = asyncio.create_task(stream.open())
    await until(lambda: service.waiting or (moment == "creating" and service.creates))
    await stream.aclose()
    with pytest.raises(StreamInterruptedError):
        await opening
    gate.set()
    assert await read(prefix.stream("?")) == TEXT
    assert held(session) == {}


async def test_a_stream_is_no_outcome_unknown(prefix, service):
    """On a prefix a lost head is asked for again, so no error doubts what is harmless to repeat."""
    service.fate("broken")
    assert await read(prefix.stream("?")) == TEXT
    service.fate("broken")
    with pytest.raises(OutcomeUnknownError):
        await read(prefix.stream("?", repeatable=False))


async def test_a_stream_s_use_counts_from_its_beginning(prefix, service, clock):
    """The end of the context's time slides when the stream has ended, to what the moment of its sending makes of it."""
    await prefix.warm()
    end = prefix.expires_at
    clock.advance(100)
    service.streaming.clear()
    stream = prefix.stream("?")
    await anext(stream)
    clock.advance(1000)
    assert prefix.expires_at == end
    service.streaming.set()
    assert await read(stream) == "".join(WORDS[1:])
    assert prefix.expires_at == end + 100


async def test_a_stream_that_failed_slides_nothing(prefix, service, clock):
    """Its use of the context is in doubt; what it is known to have used is in the books."""
    await prefix.warm()
    end = prefix.expires_at
    clock.advance(100)
    service.fate("cut")
    with pytest.raises(StreamInterruptedError):
        await read(prefix.stream("?"))
    assert prefix.expires_at == end
    assert prefix.usage.prompt_tokens == 100
