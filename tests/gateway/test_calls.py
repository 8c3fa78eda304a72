"""The limits of keys, through the gateway."""

import asyncio
from typing import Any

import pytest

from ctxcache.gateway import GatewayLimits
from ctxcache.gateway.key_file import add_key
from ctxcache.gateway.rules.clients import KeyLimits

CREATE = {"model": "Doubao-1.5-pro-32k", "messages": [{"role": "system", "content": "abcd" * 5}]}


class Gate:
    """A gateway with two keys, one of them with limits."""

    def __init__(self, start: Any, path: str) -> None:
        self.start = start
        self.path = path

    async def __call__(self, key_limits: KeyLimits, **settings: Any) -> tuple[Any, Any]:
        """Start; return the endpoints with the limited key and with the other."""
        keys = add_key(self.path, "ann", key_limits), add_key(self.path, "bob")
        api = await self.start(keys=self.path, **settings)
        return api.with_key(keys[0]), api.with_key(keys[1])


@pytest.fixture
def gate(start: Any, tmp_path: Any) -> Gate:
    """Start a gateway with a limited key."""
    return Gate(start, str(tmp_path / "keys.json"))


async def codes(api: Any, count: int) -> list[Any]:
    """Create contexts; return the status, or the code of the error, of each."""
    answers = [await api.post("/context/create", CREATE) for _ in range(count)]
    return [answer.status if answer.status == 200 else answer.error["code"] for answer in answers]


async def test_contexts_of_a_key(gate: Gate, clock: Any) -> None:
    """A key may have so many contexts; others are not touched, and one that ends makes room."""
    ann, bob = await gate(KeyLimits(contexts=2))
    assert await codes(ann, 3) == [200, 200, "QuotaExceeded"]
    assert await codes(bob, 3) == [200, 200, 200]
    clock.now += 86400
    assert await codes(ann, 3) == [200, 200, "QuotaExceeded"]


async def test_the_bound_of_all_holds_for_each(gate: Gate) -> None:
    """A key within its limits is refused where all contexts together are too many."""
    ann, bob = await gate(KeyLimits(contexts=3), limits=GatewayLimits(contexts=3))
    assert await codes(bob, 2) == [200, 200]
    assert await codes(ann, 2) == [200, "QuotaExceeded"]
    answer = await ann.post("/context/create", CREATE)
    assert "There are 3 contexts already" in answer.error["message"]


async def test_memory_of_a_key(gate: Gate, dictated: Any) -> None:
    """Messages of a key take so much memory, questions included; what is given back makes room."""
    ann, bob = await gate(KeyLimits(memory_bytes=4000), engine=dictated)
    context = (await ann.create())["id"]
    large = await ann.chat(context, "x" * 5000)
    assert (large.status, large.error["code"]) == (429, "QuotaExceeded")
    assert "All contexts of the key may take 4000 bytes" in large.error["message"]
    dictated.say("a", None, "b", None)
    assert (await bob.chat((await bob.create())["id"], "x" * 5000)).status == 200
    assert (await ann.chat(context, "x" * 1000)).status == 200


async def test_calls_at_once(gate: Gate, dictated: Any) -> None:
    """A key has so many calls under way; one that ends, whole or cut, makes room."""
    ann, _ = await gate(KeyLimits(calls=1), engine=dictated)
    context = (await ann.create(mode="common_prefix"))["id"]
    for last in (None, RuntimeError()):
        dictated.started.clear()
        chat = asyncio.create_task(ann.chat(context))
        await dictated.started.wait()
        refused = await ann.chat(context)
        assert (refused.status, refused.error["code"]) == (429, "InflightBatchsizeExceeded")
        assert refused.headers["Retry-After"] == "1"
        dictated.say("a", last)
        await chat
    assert await codes(ann, 2) == [200, 200]


async def test_requests_a_minute(gate: Gate, clock: Any) -> None:
    """Beyond the limit a request is refused until the time of `Retry-After` has passed, and not a second longer."""
    ann, bob = await gate(KeyLimits(requests_per_minute=3))
    assert await codes(ann, 2) == [200, 200]
    clock.now += 20
    assert await codes(ann, 1) == [200]
    refused = await ann.post("/context/create", CREATE)
    assert (refused.status, refused.error["code"]) == (429, "APIAccountRpmRateLimitExceeded")
    wait = int(refused.headers["Retry-After"])
    clock.now += wait - 1
    assert await codes(ann, 1) == ["APIAccountRpmRateLimitExceeded"]
    clock.now += 1
    assert await codes(ann, 3) == [200, 200, "APIAccountRpmRateLimitExceeded"]
    assert await codes(bob, 10) == [200] * 10


async def test_tokens_a_minute(gate: Gate, dictated: Any, clock: Any) -> None:
    """Tokens of contexts, questions and replies count, those of replies that were cut as well."""
    ann, _ = await gate(KeyLimits(tokens_per_minute=30), engine=dictated)
    context = (await ann.create(messages=CREATE["messages"], mode="common_prefix"))["id"]  # 5 tokens
    dictated.say("abcd" * 10, RuntimeError())
    assert (await ann.chat(context, "abcd")).status == 500  # 6 tokens, and 10
    dictated.say("a", None)
    assert (await ann.chat(context, "abcd")).status == 200  # 6 and 1
    dictated.say("a", None)
    assert (await ann.chat(context, "abcd")).status == 200  # 28 were used before
    refused = await ann.chat(context, "abcd")
    assert (refused.status, refused.error["code"]) == (429, "ModelAccountTpmRateLimitExceeded")
    clock.now += int(refused.headers["Retry-After"])
    dictated.say("a", None)
    assert (await ann.chat(context, "abcd")).status == 200
