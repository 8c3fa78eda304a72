"""`call`: a call whose context is gone is repeated on the next one, and no more often than that."""

import asyncio

import pytest

from ctxcache import (
    BadRequestError,
    ContextGoneError,
)

from ..service import TEXT


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_a_context_found_gone_is_made_anew_and_the_call_repeated(prefix, service, told, log_lines, way):
    """One create and one POST more; hooks and log say which context went, and why."""
    lines = log_lines("INFO")
    await prefix.warm()
    service.expire()
    if way == "ask":
        assert (await prefix.ask("?")).text == TEXT
    else:
        assert "".join([text async for text in prefix.stream("?").text()]) == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})
    assert [name for name, _ in told] == ["on_create", "on_recreate"]
    assert (told[1][1].old_id, told[1][1].reason) == ("ctx-1", "gone")
    lines = log_lines("INFO")
    assert lines == [
        "context ctx-1: created, ttl 3600 s",
        "context ctx-2: created in place of ctx-1 (gone), ttl 3600 s",
    ]


@pytest.mark.parametrize("way", ["ask", "stream"])
async def test_where_every_context_is_gone_at_once_there_is_no_loop(prefix, service, way):
    """Two creates and two POSTs, then the error; the next call does the same again."""
    service.stillborn = float("inf")
    for calls in (1, 2):
        with pytest.raises(ContextGoneError):
            if way == "ask":
                await prefix.ask("?")
            else:
                [_ async for _ in prefix.stream("?")]
        assert (len(service.creates), len(service.chats)) == (2 * calls, 2 * calls)
        assert prefix.context is None


async def test_an_id_that_is_gone_when_it_comes(prefix, service):
    """The context is made once more, and the call is answered."""
    service.stillborn = 1
    assert (await prefix.ask("?")).text == TEXT
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 1, "ctx-2": 1})


async def test_another_error_is_raised_as_it_is(prefix, service):
    """Only what says that the context is gone is repeated."""
    service.create_errors.append(400)
    with pytest.raises(BadRequestError):
        await prefix.ask("?")
    assert (len(service.creates), service.chats) == (1, [])


async def test_what_gone_means_may_be_said_otherwise(prefix_for, service):
    """The predicate is the caller's; so it can also say that nothing is."""
    prefix = prefix_for(is_gone=lambda error: False)
    service.fate("gone")
    with pytest.raises(ContextGoneError):
        await prefix.ask("?")
    assert (len(service.creates), len(service.chats)) == (1, 1)
    assert prefix.context.id == "ctx-1"


async def test_a_second_error_is_raised_as_it_is(prefix, service):
    """If the context cannot be made anew, the caller is told why."""
    await prefix.warm()
    service.expire()
    service.create_errors.extend([400])
    with pytest.raises(BadRequestError):
        await prefix.ask("?")
    assert (len(service.creates), len(service.chats)) == (2, 1)
    await prefix.ask("?")
    assert len(service.creates) == 3


async def test_fifty_that_find_the_same_context_gone_make_one_new(prefix, service, until):
    """Two creates in all, each call repeated once."""
    await prefix.warm()
    service.expire()
    service.chatting.clear()
    asking = [asyncio.create_task(prefix.ask("?")) for _ in range(50)]
    await until(lambda: service.waiting == 50)
    service.chatting.set()
    assert {reply.text for reply in await asyncio.gather(*asking)} == {TEXT}
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 50, "ctx-2": 50})


async def test_who_finds_it_gone_late_takes_the_new_one(prefix, service, until):
    """A straggler does not throw away what has come in its place."""
    await prefix.warm()
    service.streaming.clear()
    service.fate("middle")
    straggler = asyncio.create_task(collect(prefix.stream("late")))
    await until(lambda: service.chats)
    service.fate("gone")
    await prefix.ask("?")
    service.streaming.set()
    with pytest.raises(ContextGoneError):
        await straggler
    assert prefix.context.id == "ctx-2"
    await prefix.ask("?")
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 2, "ctx-2": 2})


async def test_a_straggler_is_repeated_on_the_new_one(prefix, service, until):
    """One create for both."""
    await prefix.warm()
    service.chatting.clear()
    service.fate("gone", "gone")
    asking = [asyncio.create_task(prefix.ask(question)) for question in ("early", "late")]
    await until(lambda: service.waiting == 2)
    service.chatting.set()
    assert [reply.text for reply in await asyncio.gather(*asking)] == [TEXT, TEXT]
    assert (len(service.creates), service.posts) == (2, {"ctx-1": 2, "ctx-2": 2})


async def collect(stream):
    """All chunks."""
    return [chunk async for chunk in stream]


@pytest.mark.parametrize("way", ["ask", "stream", "late", "middle"])
async def test_a_predicate_that_raises_is_no_answer(prefix_for, service, log_lines, way):
    """The caller gets the service's error, not the predicate's; the context is taken to be there."""

    def broken(error):
        raise LookupError("no such code")

    prefix = prefix_for(is_gone=broken)
    service.fate("gone" if way in ("ask", "stream") else way)
    log_lines("ERROR")
    with pytest.raises(ContextGoneError):
        if way == "ask":
            await prefix.ask("?")
        else:
            [_ async for _ in prefix.stream("?")]
    assert (len(service.creates), len(service.chats)) == (1, 1)
    assert prefix.context.id == "ctx-1"
    assert log_lines("ERROR")
