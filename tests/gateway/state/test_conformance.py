"""What a gateway promises with every state, and what of that outlives the gateway where there is one."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ctxcache.errors import BadRequestError
from ctxcache.gateway import GatewayLimits
from ctxcache.gateway.key_file import add_key
from ctxcache.models import Message, assistant, system, tool, user

HOUR = 3600
TURNS = [user("one"), assistant("first"), user("two"), assistant("second")]
CALL = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"clause":3}'}}
CREATE = {"model": "Doubao-1.5-pro-32k", "messages": [{"role": "system", "content": "x"}]}

Settings = dict[str, Any]


@pytest.fixture(params=["sqlite", "redis"])
def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """The settings of a gateway whose contexts outlive the process."""
    if request.param == "sqlite":
        return {"state": tmp_path / "contexts.db"}
    return {"state": request.getfixturevalue("redis_url")}


@pytest.fixture(params=["memory", "sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """The settings of a gateway with each kind of state, and with none."""
    if request.param == "redis":
        return {"state": request.getfixturevalue("redis_url")}
    return {"memory": {}, "sqlite": {"state": tmp_path / "contexts.db"}}[request.param]


async def held(api: Any, dictated: Any, context: str) -> tuple[Message, ...] | None:
    """Return what an engine sees of a context, by a call that stores nothing; None if the context is gone."""
    dictated.say(BadRequestError("no", status=400))
    answer = await api.chat(context, "?")
    if answer.status == 404:
        dictated.pieces.get_nowait()
        return None
    assert answer.status == 400
    found: tuple[Message, ...] = dictated.prompts[-1].context
    return found


async def converse(start: Any, dictated: Any, settings: Settings, **fields: Any) -> tuple[Any, str]:
    """Start a gateway, create a session, and complete two turns."""
    api = await start(engine=dictated, **settings)
    context = (await api.create(messages=[{"role": "system", "content": "Be kind."}], **fields))["id"]
    for question, reply in (("one", "first"), ("two", "second")):
        dictated.say(reply, None)
        assert (await api.chat(context, question)).status == 200
    return api, context


async def test_turns_are_kept_in_order(start: Any, dictated: Any, settings: Settings) -> None:
    """A session keeps completed turns, and the engine sees them."""
    api, context = await converse(start, dictated, settings)
    assert await held(api, dictated, context) == (system("Be kind."), *TURNS)
    dictated.say(None)
    await api.chat(context, "three")
    assert dictated.prompts[-1].messages == (system("Be kind."), *TURNS, user("three"))


async def test_a_failed_answer_stores_nothing(start: Any, dictated: Any, settings: Settings) -> None:
    """A turn whose answer broke off is not stored, and the session is free."""
    api, context = await converse(start, dictated, settings)
    dictated.say("half", RuntimeError())
    assert "error" in (await api.chat(context, "three", stream=True)).data[-1]
    assert await held(api, dictated, context) == (system("Be kind."), *TURNS)
    dictated.say("third", None)
    assert (await api.chat(context, "four")).status == 200


async def test_calls_on_a_session_must_not_overlap(start: Any, dictated: Any, settings: Settings) -> None:
    """A session under way refuses a second call."""
    api, context = await converse(start, dictated, settings)
    dictated.started.clear()
    first = asyncio.create_task(api.chat(context, "three"))
    await dictated.started.wait()
    second = await api.chat(context, "four")
    assert (second.status, second.error["code"]) == (403, "OperationDenied.InvalidState")
    dictated.say(None)
    assert (await first).status == 200


async def test_an_idle_context_expires(start: Any, dictated: Any, settings: Settings, clock: Any) -> None:
    """A context ends when nobody has used it for its ttl."""
    api, context = await converse(start, dictated, settings, ttl=HOUR)
    clock.now += HOUR - 1
    dictated.say(None)
    assert (await api.chat(context)).status == 200
    clock.now += HOUR
    assert (await api.chat(context)).error["code"] == "NotFound.context_id"


async def test_a_context_exists_for_its_key_only(start: Any, dictated: Any, settings: Settings, tmp_path: Path) -> None:
    """For another key a context is one that never was: busy or idle, of either mode, before and after a restart."""
    path = str(tmp_path / "keys.json")
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    api = await start(engine=dictated, keys=path, **settings)
    mine, other = api.with_key(ann), api.with_key(bob)
    contexts = [(await mine.create(mode=mode))["id"] for mode in ("session", "common_prefix")]

    async def check() -> None:
        for context in contexts:
            unknown = context[:-1] + ("a" if context[-1] != "a" else "b")
            refusals = [await other.chat(name) for name in (context, unknown)]
            told = [
                (answer.status, answer.error["code"], answer.error["message"].split(" Request id")[0].replace(name, ""))
                for answer, name in zip(refusals, (context, unknown), strict=True)
            ]
            assert told[0] == told[1]
            assert told[0][:2] == (404, "NotFound.context_id")

    await check()
    dictated.started.clear()
    chat = asyncio.create_task(mine.chat(contexts[0]))
    await dictated.started.wait()
    await check()
    dictated.say("a", None)
    assert (await chat).status == 200
    if settings:
        await api.gateway.aclose()
        api = await start(engine=dictated, keys=path, **settings)
        mine, other = api.with_key(ann), api.with_key(bob)
        await check()
        dictated.say("a", None)
        assert (await mine.chat(contexts[0])).status == 200


# --- after the end of the gateway


async def test_a_session_goes_on_after_a_restart(start: Any, dictated: Any, lasting: Settings) -> None:
    """The next gateway has the context with its turns, and the conversation goes on."""
    api, context = await converse(start, dictated, lasting)
    await api.gateway.aclose()
    api = await start(engine=dictated, **lasting)
    assert await held(api, dictated, context) == (system("Be kind."), *TURNS)
    dictated.say("third", None)
    assert (await api.chat(context, "three")).json["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert (await held(api, dictated, context) or ())[-2:] == (user("three"), assistant("third"))


async def test_everything_of_a_message_is_kept(start: Any, dictated: Any, lasting: Settings) -> None:
    """Parts, tool calls, names and further fields come back as they were created."""
    messages = [
        {"role": "system", "content": "Ü 🙂 \u2028", "name": "s"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "24", "tool_call_id": "call-1"},
        {"role": "user", "content": "And?", "further": {"deep": [1, 2.5, None, True]}},
    ]
    api = await start(engine=dictated, **lasting)
    context = (await api.create(messages=messages, mode="common_prefix"))["id"]
    before = api.gateway.messages(context)
    await api.gateway.aclose()
    api = await start(engine=dictated, **lasting)
    assert await held(api, dictated, context) == before
    assert before[3] == tool("24", tool_call_id="call-1")
    assert before[4].extra == {"further": {"deep": [1, 2.5, None, True]}}


@pytest.mark.parametrize("strategy", [{"type": "last_history_tokens", "last_history_tokens": 4}, None])
async def test_dropped_messages_do_not_come_back(
    start: Any, dictated: Any, lasting: Settings, strategy: Settings | None
) -> None:
    """What a window dropped stays dropped, and the strategy goes on as created."""
    models = {"Doubao-1.5-pro-32k": 12}
    api = await start(engine=dictated, models=models, **lasting)
    fields = {} if strategy is None else {"truncation_strategy": strategy}
    context = (await api.create(**fields))["id"]
    for number in range(8):
        dictated.say(f"answer {number}", None)
        assert (await api.chat(context, f"question {number}")).status == 200
    before = await held(api, dictated, context) or ()
    assert len(before) < 8
    await api.gateway.aclose()
    api = await start(engine=dictated, models=models, **lasting)
    assert await held(api, dictated, context) == before
    dictated.say("the last", None)
    assert (await api.chat(context, "question 9")).status == 200
    assert len(api.gateway.messages(context)) <= len(before) + 1


async def test_idle_timers_go_on(start: Any, dictated: Any, lasting: Settings, clock: Any) -> None:
    """The time between two gateways counts; a use before the end of the first has postponed the expiry."""
    api, context = await converse(start, dictated, lasting, ttl=HOUR)
    clock.now += HOUR - 1
    dictated.say(None)
    await api.chat(context)
    await api.gateway.aclose()
    clock.now += HOUR - 1
    api = await start(engine=dictated, **lasting)
    assert await held(api, dictated, context) is not None
    await api.gateway.aclose()
    clock.now += HOUR
    api = await start(engine=dictated, **lasting)
    assert await held(api, dictated, context) is None


@pytest.mark.parametrize("end", ["by hand", "by time"])
async def test_an_ended_context_does_not_come_back(
    start: Any, dictated: Any, lasting: Settings, clock: Any, end: str
) -> None:
    """A context that has ended is gone for the next gateway, even if its clock is set back."""
    api, context = await converse(start, dictated, lasting, ttl=HOUR)
    if end == "by hand":
        assert api.gateway.expire(context)
    else:
        clock.now += HOUR
        assert await held(api, dictated, context) is None
    await api.gateway.aclose()
    clock.now -= HOUR
    api = await start(engine=dictated, **lasting)
    assert await held(api, dictated, context) is None


async def test_a_prefix_that_cannot_be_warmed_leaves_nothing(start: Any, lasting: Settings) -> None:
    """A create that the engine refuses keeps no context."""

    class Refusing:
        async def prepare(self, context: Any) -> None:
            raise RuntimeError

        async def generate(self, prompt: Any) -> Any:
            yield "never"

    api = await start(engine=Refusing(), limits=GatewayLimits(contexts=1), **lasting)
    for _ in range(3):
        assert (await api.post("/context/create", CREATE)).status == 500
    await api.gateway.aclose()
    api = await start(limits=GatewayLimits(contexts=1), **lasting)
    assert (await api.post("/context/create", CREATE)).status == 200


async def test_limits_count_what_came_back(start: Any, dictated: Any, lasting: Settings) -> None:
    """Contexts of the state count for the limits of the next gateway."""
    api, _ = await converse(start, dictated, lasting)
    await api.gateway.aclose()
    api = await start(limits=GatewayLimits(contexts=1), **lasting)
    assert (await api.post("/context/create", CREATE)).error["code"] == "QuotaExceeded"


@pytest.mark.parametrize("models", [{"another": 100}, {"Doubao-1.5-pro-32k": 2}])
async def test_contexts_of_other_models_wait(
    start: Any, dictated: Any, lasting: Settings, models: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """A context of a model that is not served, or with a smaller window, is refused, and there again with the model."""
    api, context = await converse(start, dictated, lasting)
    await api.gateway.aclose()
    api = await start(engine=dictated, models=models, **lasting)
    assert (await api.chat(context)).status == 404
    await api.gateway.aclose()
    api = await start(engine=dictated, **lasting)
    assert await held(api, dictated, context) == (system("Be kind."), *TURNS)
