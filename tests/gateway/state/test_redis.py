"""Several gateways on one Redis server: one conversation, whoever serves it; gateways and servers that end."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import redis

from ctxcache import APIStatusError, Context, ContextBusyError, SessionError, StreamInterruptedError, user
from ctxcache.errors import InvalidInputError
from ctxcache.gateway import Gateway, GatewayLimits, ScriptedEngine
from ctxcache.gateway.rules.clients import NO_LIMITS
from ctxcache.gateway.rules.records import ContextRecord
from ctxcache.gateway.state import RedisState

from ...managed.redis_server import redis_server
from .conftest import MODEL, Running, Spawn

SLOW = {"pieces_per_second": 50, "length": 40}  # 0.8 seconds an answer


async def replicas(start: Any, count: int, url: str, **settings: Any) -> list[Any]:
    """Start gateways on one server."""
    return [await start(state=url, **settings) for _ in range(count)]


@pytest.mark.parametrize("count", [2, 4])
async def test_any_gateway_serves_any_context(start: Any, dictated: Any, redis_url: str, count: int) -> None:
    """Turns in a round-robin of gateways make one conversation."""
    apis = await replicas(start, count, redis_url, engine=dictated)
    context = (await apis[0].create())["id"]
    for number, api in zip(range(9), cycle(apis), strict=False):
        dictated.say(f"answer {number}", None)
        assert (await api.chat(context, f"question {number}")).status == 200
        said = [message.text for message in dictated.prompts[-1].context]
        assert said == ["Be kind.", *[f"{kind} {n}" for n in range(number) for kind in ("question", "answer")]]


async def test_dropped_messages_are_dropped_everywhere(start: Any, dictated: Any, redis_url: str) -> None:
    """Gateways that missed turns, and the drops after them, see the history that is left."""
    strategy = {"type": "last_history_tokens", "last_history_tokens": 4}
    one, two = await replicas(start, 2, redis_url, engine=dictated)
    context = (await one.create(truncation_strategy=strategy))["id"]
    for api in (one, two, one, one, one, one, one, two, one):
        dictated.say("answer", None)
        assert (await api.chat(context, "question")).status == 200
    assert [message.text for message in dictated.prompts[-1].context] == ["Be kind.", "question", "answer"]


async def test_calls_do_not_overlap_across_gateways(start: Any, dictated: Any, redis_url: str) -> None:
    """A session that one gateway serves is busy for another, and free when the answer has ended, whole or not."""
    one, two = await replicas(start, 2, redis_url, engine=dictated)
    context = (await one.create())["id"]
    first = asyncio.create_task(one.chat(context))
    await dictated.started.wait()
    assert (await two.chat(context)).error["code"] == "OperationDenied.InvalidState"
    dictated.say("a", None)
    assert (await first).status == 200
    dictated.say(RuntimeError(), "b", None)
    assert (await two.chat(context)).status == 500
    assert (await one.chat(context)).status == 200


async def test_a_refused_chat_leaves_the_session_free(start: Any, dictated: Any, redis_url: str) -> None:
    """A question that does not fit is refused by one gateway, and another takes the next."""
    one, two = await replicas(start, 2, redis_url, engine=dictated, models={MODEL: 50})
    context = (await one.create())["id"]
    assert (await one.chat(context, "x" * 1000)).error["code"] == "OutofContextError"
    dictated.say("a", None)
    assert (await two.chat(context)).status == 200


async def test_a_long_history_is_found_whole(start: Any, redis_url: str, dictated: Any) -> None:
    """A gateway that comes to a conversation of hundreds of turns sees each message once, in order."""
    engine = ScriptedEngine(pieces_per_second=0, first_token_delay=0, length=1)
    one, two = await start(state=redis_url, engine=engine), await start(state=redis_url, engine=dictated)
    context = (await one.create())["id"]
    for number in range(120):
        assert (await one.chat(context, f"question {number}")).status == 200
    dictated.say("a", None)
    assert (await two.chat(context)).status == 200
    said = [message.text for message in dictated.prompts[-1].context]
    assert said[1::2] == [f"question {number}" for number in range(120)]


async def test_a_timer_goes_on_for_all(start: Any, dictated: Any, redis_url: str, clock: Any, until: Any) -> None:
    """A use at one gateway postpones the expiry for another, of sessions and of prefixes."""
    one, two = await replicas(start, 2, redis_url, engine=dictated)
    contexts = [(await one.create(mode=mode, ttl=3600))["id"] for mode in ("session", "common_prefix")]
    for context in contexts:
        dictated.say("a", None)
        assert (await two.chat(context)).status == 200
    clock.now += 3599
    for context in contexts:
        dictated.say("a", None)
        assert (await one.chat(context)).status == 200
    await one.gateway.aclose()  # which notes the timers that wait
    clock.now += 3599
    for context in contexts:
        dictated.say("a", None)
        assert (await two.chat(context)).status == 200
    clock.now += 3600
    assert [(await two.chat(context)).status for context in contexts] == [404, 404]


async def test_the_number_of_contexts_is_that_of_all(start: Any, redis_url: str, clock: Any) -> None:
    """Gateways share the bound on contexts; expired ones make room."""
    one, two = await replicas(start, 2, redis_url, limits=GatewayLimits(contexts=2))
    await one.create(ttl=3600)
    await two.create()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    for api in (one, two):
        assert (await api.post("/context/create", body)).error["code"] == "QuotaExceeded"
    clock.now += 3600
    await one.create()
    assert (await two.post("/context/create", body)).error["code"] == "QuotaExceeded"


async def test_an_id_that_is_taken_is_left_alone(start: Any, dictated: Any, redis_url: str) -> None:
    """A gateway that gives another's id refuses that create, and the other's context lives on."""
    one, two = await replicas(start, 2, redis_url, engine=dictated, randbelow=lambda _: 0)
    context = (await one.create())["id"]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    refused = await two.post("/context/create", body)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    for api in (one, two):
        dictated.say("a", None)
        assert (await api.chat(context)).status == 200
    assert dictated.prompts[-1].context[0].text == "Be kind."


async def test_memory_is_that_of_all(start: Any, redis_url: str) -> None:
    """Gateways share the bound on the memory of messages."""
    one, two = await replicas(start, 2, redis_url, limits=GatewayLimits(memory_bytes=20_000))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 9000}]}
    assert [(await api.post("/context/create", body)).status for api in (one, two, one)] == [200, 200, 429]


async def test_a_warm_prefix_costs_no_round_trip(start: Any, redis_url: str, commands: Callable[[], int]) -> None:
    """Chats on a prefix that a gateway knows ask the server for nothing; the timers of all are noted together."""
    engine = ScriptedEngine(pieces_per_second=0, first_token_delay=0, length=1)
    one, two = await replicas(start, 2, redis_url, engine=engine)
    context = (await one.create(mode="common_prefix"))["id"]
    await two.chat(context)
    before = commands()
    for api in (one, two) * 20:
        assert (await api.chat(context)).status == 200
    assert commands() - before <= 40


async def test_a_turn_costs_two_round_trips(start: Any, redis_url: str, commands: Callable[[], int]) -> None:
    """A chat on a session claims it and appends the turn, and asks for nothing else, however long the history is."""
    engine = ScriptedEngine(pieces_per_second=0, first_token_delay=0, length=1)
    one, two = await replicas(start, 2, redis_url, engine=engine)
    context = (await one.create())["id"]
    await two.chat(context)
    before = commands()
    for api in (one, two) * 10:
        assert (await api.chat(context)).status == 200
    assert commands() - before <= 2 * 20 + 2


async def test_copies_are_bounded(start: Any, dictated: Any, redis_url: str) -> None:
    """A gateway drops copies beyond its memory, and makes them again when they are used."""
    limits = GatewayLimits(memory_bytes=1_000_000)
    (writer,) = await replicas(start, 1, redis_url, limits=limits)
    text = {"role": "user", "content": "x" * 20_000}
    contexts = [(await writer.create(messages=[text], mode="common_prefix"))["id"] for _ in range(20)]
    (reader,) = await replicas(start, 1, redis_url, limits=GatewayLimits(memory_bytes=100_000), engine=dictated)
    for context in contexts * 2:
        dictated.say("a", None)
        assert (await reader.chat(context)).status == 200
    held = [context for context in contexts if reader.gateway.messages(context) is not None]
    assert 1 <= len(held) <= 4
    assert held[-1] == contexts[-1]


async def test_a_claim_is_renewed(
    start: Any, dictated: Any, redis_url: str, clock: Any, commands: Callable[[], int], until: Any
) -> None:
    """An answer that takes longer than the lease keeps the session."""
    one, two = [await start(state=state(redis_url, clock), engine=dictated) for _ in range(2)]
    context = (await one.create())["id"]
    first = asyncio.create_task(one.chat(context))
    await dictated.started.wait()
    with redis.Redis.from_url(redis_url) as client:
        key = f"ctxcache-gateway:c:{context}"
        for _ in range(3):
            end = client.hget(key, "until")
            await until(lambda end=end: client.hget(key, "until") != end)
    assert (await two.chat(context)).status == 403
    dictated.say("a", None)
    assert (await first).status == 200


def state(url: str, clock: Any) -> RedisState:
    """Make a state whose claims are short."""
    return RedisState(url, clock=clock, _lease_seconds=1.0, _touch_seconds=0.1)


async def test_timers_are_noted_together(start: Any, dictated: Any, redis_url: str, clock: Any, until: Any) -> None:
    """The timer of a prefix is noted soon after its use, while the gateway runs."""
    api = await start(state=state(redis_url, clock), engine=dictated)
    context = (await api.create(mode="common_prefix", ttl=3600))["id"]
    clock.now += 10
    dictated.say("a", None)
    await api.chat(context)
    with redis.Redis.from_url(redis_url) as client:
        await until(lambda: float(client.hget(f"ctxcache-gateway:c:{context}", "deadline")) == clock.now + 3600)


async def test_a_server_that_was_set_back_is_believed(start: Any, dictated: Any, redis_url: str) -> None:
    """Where the server has fewer turns than a gateway remembers, the next call sees what the server has."""
    (api,) = await replicas(start, 1, redis_url, engine=dictated)
    context = (await api.create())["id"]
    for number in range(2):
        dictated.say(f"answer {number}", None)
        await api.chat(context, f"question {number}")
    with redis.Redis.from_url(redis_url) as client:
        client.ltrim(f"ctxcache-gateway:h:{context}", 0, 1)
        client.hset(f"ctxcache-gateway:c:{context}", "stored", 2)
    answer = await api.chat(context)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    dictated.say("a", None)
    assert (await api.chat(context)).status == 200
    assert [message.text for message in dictated.prompts[-1].context] == ["Be kind.", "question 0", "answer 0"]


async def test_a_context_that_ends_is_gone_everywhere(start: Any, dictated: Any, redis_url: str, until: Any) -> None:
    """A session that one gateway ends is refused by the other, which had a copy."""
    one, two = await replicas(start, 2, redis_url, engine=dictated)
    context = (await one.create())["id"]
    dictated.say("a", None)
    await two.chat(context)
    assert one.gateway.expire(context)
    with redis.Redis.from_url(redis_url) as client:
        await until(lambda: not client.exists(f"ctxcache-gateway:c:{context}"))
    assert (await two.chat(context)).error["code"] == "NotFound.context_id"


async def test_a_server_without_memory_stores_no_turn(start: Any, dictated: Any, redis_url: str) -> None:
    """A turn that the server refuses is a 503, not stored, and the session is free."""
    (api,) = await replicas(start, 1, redis_url, engine=dictated)
    context = (await api.create())["id"]
    with redis.Redis.from_url(redis_url) as client:
        dictated.say(lambda: client.config_set("maxmemory", "1"), "a", None)
        answer = await api.chat(context)
        client.config_set("maxmemory", "0")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "is not stored" in answer.error["message"]
    dictated.say("a", None)
    assert (await api.chat(context)).status == 200
    assert [message.text for message in dictated.prompts[-1].context] == ["Be kind."]


# --- processes


async def ask(running: Running, context: Context, question: str) -> str:
    """Ask, again as long as the session is busy."""
    while True:
        try:
            return await running.ask(context, question)
        except ContextBusyError:
            await asyncio.sleep(0.05)


async def test_a_killed_gateway_frees_its_sessions(spawn: Spawn, redis_url: str) -> None:
    """A gateway killed in mid-stream blocks its session no longer than the lease; the half turn is not stored."""
    one, two = [await spawn(state=redis_url, lease=3.0, **SLOW) for _ in range(2)]
    context = await one.create()
    await ask(one, context, "first?")
    stream = one.session.chat.stream(context_id=context.id, model=MODEL, messages=[user("half?")])
    async with stream:
        await anext(stream)
        one.kill()
        with pytest.raises(StreamInterruptedError):
            await stream.finish()
    with pytest.raises(ContextBusyError):
        await two.ask(context, "second?")
    await ask(two, context, "second?")
    assert await questions(redis_url, context) == ["first?", "second?"]


async def test_a_gateway_that_was_held_up_stores_nothing(spawn: Spawn, redis_url: str) -> None:
    """A gateway stopped past its lease, whose session another has served since, ends its answer with an error."""
    one, two = [await spawn(state=redis_url, lease=1.0, **SLOW) for _ in range(2)]
    context = await one.create()
    stream = one.session.chat.stream(context_id=context.id, model=MODEL, messages=[user("held up?")])
    async with stream:
        await anext(stream)
        one.process.send_signal(signal.SIGSTOP)
        await ask(two, context, "first?")
        one.process.send_signal(signal.SIGCONT)
        with pytest.raises(APIStatusError, match="taken over by another gateway"):
            await stream.finish()
    await ask(one, context, "second?")
    assert await questions(redis_url, context) == ["first?", "second?"]


async def questions(url: str, context: Context) -> list[str]:
    """Return the questions that are stored."""
    state = RedisState(url)
    try:
        record = await state.find(context.id, "")
    finally:
        await state.aclose()
    assert record is not None
    return [sized.message.text for sized in record.history[::2]]


async def test_a_server_that_restarts(tmp_path: Path, start: Any, dictated: Any) -> None:
    """Without the server calls on sessions are refused with 503 and Retry-After; afterwards all is as before."""
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(tmp_path))
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_server(*options))
        one, two = await replicas(start, 2, url, engine=dictated)
        context, other = [(await one.create())["id"] for _ in range(2)]
        dictated.say("a", None)
        await one.chat(context, "first?")
        dictated.started.clear()
        under_way = asyncio.create_task(two.chat(other, "lost?"))
        await dictated.started.wait()
        stack.close()
        dictated.say("a", None)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
        for answer in (await one.chat(context), await two.chat(context), await two.post("/context/create", body)):
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert "cannot be used" in answer.error["message"]
        lost = await under_way
        assert (lost.status, lost.error["code"]) == (500, "InternalServiceError")
        with redis_server(*options, port=int(url.rpartition(":")[2])):
            dictated.say("a", None)
            assert (await two.chat(context, "second?")).status == 200
            assert [message.text for message in dictated.prompts[-1].context] == ["Be kind.", "first?", "a"]
            await one.gateway.aclose()
            await two.gateway.aclose()


# --- owners


async def test_a_context_is_found_for_its_owner_only(redis_url: str, commands: Callable[[], int]) -> None:
    """The server tells a gateway nothing of another owner's context, and takes one step for that, as for no context."""
    clock = iter(range(100))
    state = RedisState(redis_url, clock=lambda: next(clock))
    record = ContextRecord(
        id="ctx-1", model=MODEL, mode="session", ttl=60, strategy=None, initial=(), deadline=60, owner="ann"
    )
    try:
        await state.create(record, NO_LIMITS)
        before = commands()
        assert [await state.find("ctx-1", "bob"), await state.find("ctx-2", "bob"), await state.find("ctx-1", "")] == [
            None,
            None,
            None,
        ]
        assert commands() - before == 3
        found = await state.find("ctx-1", "ann")
    finally:
        await state.aclose()
    assert found is not None
    assert (found.id, found.owner) == ("ctx-1", "ann")


# --- settings


async def test_a_server_that_is_not_there_is_told_at_the_start(unused_tcp_port: int) -> None:
    """A gateway does not start without the server; the error shows no password."""
    gateway = Gateway(state=f"redis://user:secret@127.0.0.1:{unused_tcp_port}")
    with pytest.raises(SessionError, match="The state that keeps the contexts cannot be used") as caught:
        await gateway.start()
    assert "secret" not in repr(caught.value)


@pytest.mark.parametrize("url", ["redis://user:a/b@host", "redis://host:port"])
def test_an_invalid_url_is_refused(url: str) -> None:
    """A URL that cannot be read is refused, and not shown."""
    with pytest.raises(InvalidInputError, match=r"^url: ") as caught:
        Gateway(state=url)
    assert url not in str(caught.value)


def test_no_url_is_shown() -> None:
    """The repr names the prefix, and not the URL."""
    assert repr(RedisState("redis://user:secret@host", prefix="mine:")) == "<RedisState 'mine:'>"
