"""The limits of keys, which hold for all gateways on one Redis server together."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from ctxcache.errors import APIStatusError
from ctxcache.gateway import ScriptedEngine
from ctxcache.gateway.key_file import add_key
from ctxcache.gateway.rules.clients import KeyLimits
from ctxcache.gateway.state import RedisState

from ...managed.redis_server import redis_server

CREATE = {"model": "Doubao-1.5-pro-32k", "messages": [{"role": "system", "content": "abcd" * 5}]}


class Replicas:
    """Gateways on one server, with a limited key."""

    def __init__(self, start: Any, url: str, path: str) -> None:
        self.start = start
        self.url = url
        self.path = path

    async def __call__(self, key_limits: KeyLimits, **settings: Any) -> list[Any]:
        """Start two; return the endpoints with the key."""
        key = add_key(self.path, "ann", key_limits)
        apis = [await self.start(keys=self.path, state=self.url, **settings) for _ in range(2)]
        return [api.with_key(key) for api in apis]


@pytest.fixture
def replicas(start: Any, redis_url: str, tmp_path: Any) -> Replicas:
    """Start gateways."""
    return Replicas(start, redis_url, str(tmp_path / "keys.json"))


async def codes(apis: Any, count: int) -> list[Any]:
    """Create contexts in turn; return the status, or the code of the error, of each."""
    answers = [await api.post("/context/create", CREATE) for api, _ in zip(cycle(apis), range(count), strict=False)]
    return [answer.status if answer.status == 200 else answer.error["code"] for answer in answers]


async def test_contexts_of_a_key(replicas: Replicas, clock: Any) -> None:
    """A key may have so many contexts at all gateways; those that end make room."""
    apis = await replicas(KeyLimits(contexts=3))
    assert await codes(apis, 5) == [200, 200, 200, "QuotaExceeded", "QuotaExceeded"]
    clock.now += 86400
    assert await codes(apis, 4) == [200, 200, 200, "QuotaExceeded"]


async def test_memory_of_a_key(replicas: Replicas, dictated: Any) -> None:
    """Messages of a key take so much memory at all gateways: creates, stored turns, and questions on sessions."""
    one, two = await replicas(KeyLimits(memory_bytes=12_000), engine=dictated)
    context = (await one.create())["id"]
    dictated.say("a", None)
    assert (await two.chat(context, "x" * 8000)).status == 200
    refused = await one.chat(context, "x" * 8000)
    assert (refused.status, refused.error["code"]) == (429, "QuotaExceeded")
    assert "All contexts of the key may take 12000 bytes" in refused.error["message"]
    large = {**CREATE, "messages": [{"role": "user", "content": "x" * 8000}]}
    assert (await two.post("/context/create", large)).error["code"] == "QuotaExceeded"
    dictated.say("a", None)
    assert (await two.chat(context, "hi")).status == 200


async def test_requests_a_minute(replicas: Replicas, clock: Any) -> None:
    """Requests count together, and `Retry-After` is true at every gateway."""
    apis = await replicas(KeyLimits(requests_per_minute=3))
    assert await codes(apis, 3) == [200, 200, 200]
    refused = await apis[1].post("/context/create", CREATE)
    assert (refused.status, refused.error["code"]) == (429, "APIAccountRpmRateLimitExceeded")
    clock.now += int(refused.headers["Retry-After"]) - 1
    assert await codes(apis, 2) == ["APIAccountRpmRateLimitExceeded"] * 2
    clock.now += 1
    assert await codes(apis, 4) == [200, 200, 200, "APIAccountRpmRateLimitExceeded"]


async def test_tokens_a_minute(replicas: Replicas, dictated: Any, clock: Any) -> None:
    """Tokens used at one gateway count at the others, once the gateway has told of the call's end."""
    one, two = await replicas(KeyLimits(tokens_per_minute=20), engine=dictated)
    context = (await one.create(mode="common_prefix"))["id"]
    dictated.say("abcd" * 20, None)
    assert (await two.chat(context)).status == 200
    assert (await two.chat(context)).error["code"] == "ModelAccountTpmRateLimitExceeded"
    refused = await one.chat(context)
    assert (refused.status, refused.error["code"]) == (429, "ModelAccountTpmRateLimitExceeded")
    clock.now += int(refused.headers["Retry-After"])
    dictated.say("a", None)
    assert (await one.chat(context)).status == 200


async def test_calls_at_once(replicas: Replicas, dictated: Any, until: Any) -> None:
    """Calls under way count together; one that ends makes room at once at its gateway, and soon at the others."""
    one, two = await replicas(KeyLimits(calls=1), engine=dictated)
    context = (await one.create(mode="common_prefix"))["id"]
    chat = asyncio.create_task(one.chat(context))
    await dictated.started.wait()
    for api in (one, two):
        refused = await api.chat(context)
        assert (refused.status, refused.error["code"]) == (429, "InflightBatchsizeExceeded")
        assert refused.headers["Retry-After"] == "1"
    dictated.say("a", None, "a", None)
    assert (await chat).status == 200
    assert (await one.chat(context)).status == 200
    await one.gateway.aclose()  # which tells what has ended
    dictated.say("a", None)
    assert (await two.chat(context)).status == 200


async def test_a_gateway_that_is_killed_frees_its_calls(redis_url: str) -> None:
    """A call that is neither ended nor renewed ends with the lease."""
    limits = KeyLimits(calls=1)
    killed, other = [RedisState(redis_url, _lease_seconds=0.3) for _ in range(2)]
    try:
        await killed.admit("ann", limits)  # not started: nothing renews
        with pytest.raises(APIStatusError, match="1 calls under way"):
            await other.admit("ann", limits)
        async with asyncio.timeout(5):
            while True:
                try:
                    await other.admit("ann", limits)
                except APIStatusError:
                    await asyncio.sleep(0.02)
                else:
                    break
    finally:
        await killed.aclose()
        await other.aclose()


async def test_a_call_that_goes_on_is_renewed(redis_url: str) -> None:
    """A call under way at a gateway that lives counts, however long."""
    limits = KeyLimits(calls=1)
    living, other = [RedisState(redis_url, _lease_seconds=0.3) for _ in range(2)]
    try:
        await living.start()
        await living.admit("ann", limits)
        await asyncio.sleep(0.9)  # three leases
        with pytest.raises(APIStatusError, match="1 calls under way"):
            await other.admit("ann", limits)
    finally:
        await living.aclose()
        await other.aclose()


@pytest.mark.parametrize("limits", [KeyLimits(contexts=9), KeyLimits(calls=9, requests_per_minute=999)])
async def test_a_limited_chat_costs_one_round_trip(
    replicas: Replicas, commands: Callable[[], int], limits: KeyLimits
) -> None:
    """A chat on a warm prefix asks the server once where calls are limited, and else for nothing."""
    engine = ScriptedEngine(pieces_per_second=0, first_token_delay=0, length=1)
    apis = await replicas(limits, engine=engine)
    context = (await apis[0].create(mode="common_prefix"))["id"]
    await apis[1].chat(context)
    before = commands()
    for api in apis * 50:
        assert (await api.chat(context)).status == 200
    notes = 20  # a few scripts a second in the background, of all that ended
    assert commands() - before <= 100 * limits.limit_calls + notes


async def test_a_server_that_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, until: Callable[[Callable[[], object]], Any]
) -> None:
    """Without the server a limited call is refused with 503; a call that ends meanwhile is told afterwards."""
    limits = KeyLimits(calls=1)
    options = ("--appendonly", "yes", "--appendfsync", "always", "--dir", str(tmp_path))
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(redis_server(*options))
        state = RedisState(url, _lease_seconds=600, _touch_seconds=0.05)
        await state.start()
        token = await state.admit("ann", limits)
        stack.close()
        state.end("ann", token, 7)
        with pytest.raises(APIStatusError) as refused:
            await state.admit("ann", limits)
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        await until(lambda: "calls are noted later" in caplog.text)
        with redis_server(*options, port=int(url.rpartition(":")[2])):
            with pytest.raises(APIStatusError, match="7 tokens a minute"):
                await state.admit("ann", KeyLimits(tokens_per_minute=7))
            assert await state.admit("ann", limits)
            await state.aclose()


@pytest.mark.parametrize("mode", ["session", "common_prefix"])
async def test_a_copy_of_anothers_context_answers_no_quicker(
    start: Any, redis_url: str, tmp_path: Path, commands: Callable[[], int], mode: str
) -> None:
    """A gateway that holds a context asks the server once for another key's call, as for an id that never was."""
    path = str(tmp_path / "keys.json")
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    api = await start(keys=path, state=redis_url)
    context = (await api.with_key(ann).create(mode=mode))["id"]
    await api.with_key(bob).chat("ctx-none")  # the server has the script from now on
    costs = []
    for name in (context, f"{context[:-5]}-----"):
        before = commands()
        assert (await api.with_key(bob).chat(name)).status == 404
        costs.append(commands() - before)
    assert costs == [1, 1]
