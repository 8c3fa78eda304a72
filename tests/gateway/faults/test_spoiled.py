"""What a client sees of each fault, and whether the turn was stored."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from ctxcache.gateway.faults.fault import Fault
from ctxcache.gateway.faults.plan import Setting
from ctxcache.gateway.faults.record import RecordedCall
from ctxcache.gateway.faults.spoiled import CutError, SpoiledCall

from .conftest import Client, Waits


@pytest.mark.parametrize("call", ["chat", "stream", "create"])
async def test_refusals(client: Client, call: str) -> None:
    """A refused call has the status, the code and the pause of the fault; nothing ran."""
    answers = []
    for set_fault in (
        lambda: client.gateway.fail(503, times=1),
        lambda: client.gateway.fail(418, code="Tea.Pot", retry_after=2, times=1),
        lambda: client.gateway.rate_limit(7, times=1),
    ):
        with set_fault():
            seen = await getattr(client, call)()
            answers.append((seen.status, seen.answer.error["code"], seen.ended))
    assert answers == [(503, "", True), (418, "Tea.Pot", True), (429, "RateLimitExceeded.EndpointRPMExceeded", True)]
    assert client.turns == 0
    assert (await getattr(client, call)()).status == 200


async def test_a_pause_is_in_the_head(client: Client) -> None:
    """`Retry-After` has the seconds."""
    client.gateway.rate_limit(7)
    answer = await client.api.chat(client.context)
    assert answer.headers["Retry-After"] == "7"


async def test_busy_and_expired(client: Client) -> None:
    """A chat is refused as busy, or finds the context expired; a create is not concerned."""
    with client.gateway.busy():
        assert (await client.chat()).answer.error["code"] == "OperationDenied.InvalidState"
        assert (await client.create()).status == 200
    with client.gateway.expire(nth=2):
        assert (await client.chat()).status == 200
        assert (await client.chat()).answer.error["code"] == "NotFound.context_id"
    assert client.gateway.messages(client.context) is None


async def test_limits(client: Client) -> None:
    """Beyond the calls of a minute, by the gateway's clock, a call is refused; so beyond those at a time."""
    with client.gateway.limits(rpm=2):
        assert [(await client.chat()).status for _ in range(3)] == [200, 200, 429]
        client.api.gateway.expire("no such context")
    with client.gateway.limits(at_once=1):
        assert [(await client.chat()).status for _ in range(3)] == [200, 200, 200]


async def test_limits_at_a_time(client: Client, waits: Waits) -> None:
    """While as many calls run as may, the next is refused; one that has ended makes room."""
    client.gateway.limits(at_once=1)
    slow = client.gateway.slow_first_token(5)
    waits.endless = True
    running = asyncio.create_task(client.chat())
    await waits.waiting.wait()
    assert (await client.create()).status == 429
    running.cancel()
    await waits.left.wait()
    slow.heal()
    statuses = [(await client.create()).status for _ in range(3)]
    assert 200 in statuses


@pytest.mark.parametrize("call", ["chat", "stream"])
async def test_waits(client: Client, waits: Waits, call: str) -> None:
    """A call waits before anything, or before the first fragment, and is answered well."""
    client.gateway.delay(0.5)
    client.gateway.slow_first_token(2)
    seen = await getattr(client, call)()
    assert (seen.status, seen.ended, waits.seconds, client.turns) == (200, True, [0.5, 2], 1)


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_a_stream_is_cut(client: Client, chunks: int) -> None:
    """So many chunks come, and no end; no turn is stored, and the session is free."""
    with client.gateway.disconnect(after_chunks=chunks):
        seen = await client.stream()
    assert (seen.chunks, seen.ended, client.turns) == (chunks, False, 0)
    assert (await client.stream()).status == 200


@pytest.mark.parametrize("chunks", [0, 1, 3])
async def test_a_stream_is_truncated(client: Client, chunks: int) -> None:
    """So many chunks come, and an end by HTTP, without `[DONE]`; no turn is stored."""
    with client.gateway.truncate(after_chunks=chunks):
        seen = await client.stream()
    assert (seen.status, seen.chunks, seen.ended, client.turns) == (200, chunks, True, 0)
    assert b"[DONE]" not in seen.body
    assert b'"finish_reason":"' not in seen.body


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "stall"])
async def test_an_answer_shorter_than_the_cut(client: Client, kind: str) -> None:
    """An answer that is shorter is spoiled at the end: no turn is stored, and no `[DONE]` comes."""
    client.gateway.reply("Yes.")
    with client.gateway.set_fault(f"{kind},after_chunks=1000"):
        seen = await client.stream()
    assert (seen.chunks, seen.ended, client.turns) == (3, kind == "truncate", 0)
    assert b"[DONE]" not in seen.body


async def test_a_plain_answer_is_spoiled(client: Client) -> None:
    """A plain answer is lost where a stream is cut, and in half where a stream is truncated; no turn is stored."""
    with client.gateway.disconnect():
        assert await client.chat() == await client.chat()
        assert (await client.chat()).status == 0
    with client.gateway.truncate():
        seen = await client.chat()
    assert (seen.status, seen.ended) == (200, True)
    with pytest.raises(json.JSONDecodeError):
        json.loads(seen.body)
    assert client.turns == 0


@pytest.mark.parametrize(("chunks", "call"), [(0, "stream"), (2, "stream"), (1, "chat"), (1, "create")])
async def test_a_stalled_answer(client: Client, waits: Waits, chunks: int, call: str) -> None:
    """Nothing comes after so many chunks, nothing at all of a plain answer; the connection is cut in the end."""
    with client.gateway.stall(4, after_chunks=chunks):
        seen = await getattr(client, call)()
    assert (seen.chunks, seen.ended, waits.seconds) == (chunks if call == "stream" else 0, False, [4])
    assert client.turns == 0


async def test_a_client_that_leaves_a_stalled_answer(client: Client, waits: Waits) -> None:
    """A client that gives up ends the wait, and the session is free."""
    waits.endless = True
    with client.gateway.stall(4):
        running = asyncio.create_task(client.stream())
        await waits.waiting.wait()
        running.cancel()
        await waits.left.wait()
    assert (await client.chat()).status == 200
    assert client.turns == 1


async def test_corrupt_answers(client: Client) -> None:
    """The chunk after so many is no JSON, all others are; a plain answer is none; the turns are stored."""
    with client.gateway.corrupt(after_chunks=2):
        seen = await client.stream()
        plain = await client.chat()
        created = await client.create()
    *events, done = seen.body.split(b"\n\n")[:-1]
    assert [number for number, event in enumerate(events) if not _is_json(event[6:])] == [2]
    assert (done, client.turns) == (b"data: [DONE]", 2)
    assert [(answer.status, _is_json(answer.body)) for answer in (plain, created)] == [(200, False), (200, False)]


@pytest.mark.parametrize("chunks", [0, 2])
async def test_a_lost_reply(client: Client, chunks: int) -> None:
    """The turn is stored, and the answer is lost: all of it, or after so many chunks."""
    with client.gateway.lose_reply(after_chunks=chunks):
        streamed = await client.stream()
        assert (streamed.chunks, streamed.ended, client.turns) == (chunks, False, 1)
        plain = await client.chat()
        assert (plain.status, client.turns) == (0, 2)
    assert (await client.chat()).status == 200


async def test_a_lost_context(client: Client) -> None:
    """A create may be lost after it ran, be cut before, or come in half."""
    outcomes = {}
    for fault in ("lose_reply", "disconnect", "truncate"):
        with client.gateway.set_fault(fault):
            seen = await client.create()
            outcomes[fault] = (seen.status, _is_json(seen.body))
    assert outcomes == {"lose_reply": (0, False), "disconnect": (0, False), "truncate": (200, False)}


async def test_usage(client: Client) -> None:
    """The usage tells of 0 cached tokens, or there is none, in plain answers, streams and creates."""
    assert _cached(await client.chat()) > 0
    with client.gateway.evict():
        assert [_cached(await call()) for call in (client.chat, client.stream, client.create)] == [0, 0, 0]
    with client.gateway.no_usage():
        assert [_cached(await call()) for call in (client.chat, client.stream, client.create)] == [None, None, None]


async def test_a_given_reply(client: Client) -> None:
    """Chats are answered with the text, which is stored."""
    with client.gateway.reply("Two years."):
        assert (await client.chat()).answer.json["choices"][0]["message"]["content"] == "Two years."
    messages = client.gateway.messages(client.context)
    assert messages is not None
    assert messages[-1].text == "Two years."


@pytest.mark.parametrize("call", ["chat", "stream", "create"])
async def test_an_outage_of_some_calls(client: Client, call: str) -> None:
    """An outage of one call cuts the connection of that call before anything ran."""
    client.gateway.outage(nth=1)
    assert (await getattr(client, call)()).status == 0
    assert client.turns == 0
    assert (await getattr(client, call)()).status == 200


async def test_a_call_ends_once(waits: Waits) -> None:
    """The cut of a connection that is closed ends the call as well; a call that was cut stalls no more."""
    stall = Setting(Fault("stall", seconds=4))
    record = RecordedCall(number=1, endpoint="chat", began=0.0)
    made: Any = SpoiledCall
    call = made(SimpleNamespace(transport=None), {}, [stall], record, None, None, waits)
    for _ in range(2):
        with pytest.raises(CutError):
            await call.end()
    assert waits.seconds == [4]


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _cached(seen: Any) -> Any:
    answer = seen.answer
    chunks = answer.chunks if seen.body.startswith(b"data: ") else [answer.json]
    usage = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
    return usage and usage["prompt_tokens_details"]["cached_tokens"]
