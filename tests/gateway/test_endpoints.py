"""Create, chat and models over a real socket: plain answers."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache import codec
from ctxcache.errors import RateLimitError
from ctxcache.gateway import MODELS, count_tokens
from ctxcache.models import assistant, system, user

MODEL = MODELS[0]


# --- create -----------------------------------------------------------------------------------------------------------


async def test_create_answers_as_the_reference_shows(api: Any) -> None:
    """A create answers with every field of the API reference, with the requested values, and the model."""
    messages = [{"role": "system", "content": "Please act as a friendly agent"}, {"role": "user", "content": "Hello"}]
    created = await api.create(messages=messages, mode="session", ttl=3600)
    assert re.fullmatch(r"ctx-20241211104333-[0-9a-z]{5}", created.pop("id"))
    assert created == {
        "model": MODEL,
        "mode": "session",
        "ttl": 3600,
        "truncation_strategy": {"type": "rolling_tokens", "rolling_tokens": True},
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 0,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


async def test_a_prefix_has_no_strategy(api: Any) -> None:
    """The answer to a common_prefix leaves `truncation_strategy` out."""
    created = await api.create(mode="common_prefix")
    assert (created["mode"], created["ttl"]) == ("common_prefix", 86400)
    assert "truncation_strategy" not in created


async def test_null_reads_as_left_out(api: Any) -> None:
    """`null`, which the vendor's SDK sends for absent options, reads as absent."""
    created = await api.create(mode=None, ttl=None, truncation_strategy=None)
    assert (created["mode"], created["ttl"]) == ("session", 86400)
    options = dict.fromkeys(["temperature", "top_p", "n", "stream", "stop", "max_tokens", "stream_options", "tools"])
    assert (await api.chat(created["id"], **options)).status == 200


async def test_a_strategy_is_honoured_and_shown(api: Any) -> None:
    """A requested strategy is shown in the answer and applied."""
    strategy = {"type": "last_history_tokens", "last_history_tokens": 1}
    created = await api.create(truncation_strategy=strategy)
    assert created["truncation_strategy"] == strategy
    await api.chat(created["id"])
    assert api.gateway.messages(created["id"]) == (system("Be kind."),)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"ttl": 3599}, "InvalidParameter", "ttl"),
        ({"ttl": 604801}, "InvalidParameter", "ttl"),
        ({"ttl": "3600"}, "InvalidParameter", "ttl"),
        ({"mode": "other"}, "InvalidParameter", "mode"),
        ({"messages": []}, "InvalidParameter", "messages"),
        ({"messages": [{"role": "robot", "content": ""}]}, "InvalidParameter", "messages"),
        ({"messages": [{"role": "user"}]}, "MissingParameter.messages", "messages"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "InvalidParameter", "messages"),
        ({"messages": None}, "MissingParameter.messages", "messages"),
        ({"model": None}, "MissingParameter.model", "model"),
        ({"truncation_strategy": {"type": "none"}}, "InvalidParameter", "truncation_strategy"),
        ({"truncation_strategy": {"x": 1}}, "InvalidParameter", "truncation_strategy"),
        (
            {"mode": "common_prefix", "truncation_strategy": {"type": "rolling_tokens"}},
            "InvalidParameter",
            "truncation_strategy",
        ),
    ],
)
async def test_create_refuses_what_is_out_of_range(api: Any, fields: dict[str, Any], code: str, param: str) -> None:
    """A field out of range is a 400 with code and field; the message names value and range."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], **fields}
    answer = await api.post("/context/create", body)
    assert answer.status == 400
    error = answer.error
    assert (error["code"], error["param"], error["type"]) == (code, param, "BadRequest")
    assert param in error["message"]
    assert "must be" in error["message"]


async def test_messages_that_fill_the_window_are_refused(start: Any) -> None:
    """Messages that fill the window are a 400 `OutofContextError`."""
    api = await start(models={MODEL: 10})
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x" * 40}]}
    answer = await api.post("/context/create", body)
    assert (answer.status, answer.error["code"]) == (400, "OutofContextError")


async def test_an_unknown_model_is_404(api: Any) -> None:
    """An unknown model is a 404 `InvalidEndpointOrModel.NotFound`."""
    answer = await api.post("/context/create", {"model": "none", "messages": [{"role": "user", "content": "x"}]})
    assert (answer.status, answer.error["code"]) == (404, "InvalidEndpointOrModel.NotFound")
    assert answer.error["type"] == "NotFound"


# --- chat -------------------------------------------------------------------------------------------------------------


async def test_a_plain_answer_is_openais(api: Any) -> None:
    """A plain answer is a `chat.completion` with reply, finish reason and usage."""
    created = await api.create()
    completion = (await api.chat(created["id"])).json
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", completion.pop("id"))
    text = "This is a scripted answer, not a language model. The context holds 1 message (2 tokens); you said: hello"
    message = {"role": "assistant", "content": text}
    assert completion == {
        "object": "chat.completion",
        "created": 1733913813,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 26,
            "total_tokens": 30,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }


async def test_our_own_models_read_the_answers(api: Any) -> None:
    """The client's codec reads the gateway's answers without loss."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "ttl": 3600}
    context = codec.decode_context((await api.post("/context/create", body)).body)
    assert (context.ttl, context.model, context.truncation_strategy.rolling_tokens) == (3600, MODEL, True)
    completion = codec.decode_completion((await api.chat(context.id)).body)
    assert completion.text.startswith("This is a scripted answer")
    assert (completion.finish_reason, completion.usage.cached_tokens) == ("stop", 2)


async def test_an_answer_in_a_stream(api: Any) -> None:
    """`stream: true` has the same answer as chunks under one id."""
    created = await api.create(mode="common_prefix")
    plain = (await api.chat(created["id"])).json
    chunks = (await api.chat(created["id"], stream=True)).chunks
    (answer_id,) = {chunk["id"] for chunk in chunks}
    assert re.fullmatch(r"chatcmpl-[0-9a-f]{24}", answer_id)
    deltas = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas) == plain["choices"][0]["message"]["content"]


async def test_a_session_keeps_the_conversation(api: Any) -> None:
    """Question and answer are stored, and the next call finds both cached."""
    created = await api.create()
    first = (await api.chat(created["id"], "one")).json
    second = (await api.chat(created["id"], "two")).json
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] == first["usage"]["total_tokens"]
    texts = [answer["choices"][0]["message"]["content"] for answer in (first, second)]
    assert "holds 3 messages" in texts[1]
    assert api.gateway.messages(created["id"]) == (
        system("Be kind."),
        *(user("one"), assistant(texts[0])),
        *(user("two"), assistant(texts[1])),
    )


async def test_a_prefix_keeps_nothing(api: Any) -> None:
    """The same call twice gets the same answer and usage."""
    created = await api.create(mode="common_prefix")
    first, second = (await api.chat(created["id"])).json, (await api.chat(created["id"])).json
    assert first["usage"] == second["usage"]
    assert first["choices"] == second["choices"]
    assert api.gateway.messages(created["id"]) == (system("Be kind."),)


async def test_several_replies(api: Any) -> None:
    """`n` replies come by index; all are counted, the first is stored."""
    created = await api.create()
    answer = (await api.chat(created["id"], n=3)).json
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert answer["usage"]["completion_tokens"] == sum(map(count_tokens, texts))
    assert api.gateway.messages(created["id"])[-1] == assistant(texts[0])


async def test_stop_and_max_tokens(api: Any) -> None:
    """The text ends before the stop string with `stop`, or at the token limit with `length`, and is stored so."""
    created = await api.create()
    stopped = (await api.chat(created["id"], stop=["not a language", "holds"])).json
    cut = (await api.chat(created["id"], max_tokens=3)).json
    choices = [(answer["choices"][0]["message"]["content"], answer["choices"][0]) for answer in (stopped, cut)]
    assert [(text, choice["finish_reason"]) for text, choice in choices] == [
        ("This is a scripted answer, ", "stop"),
        ("This is a sc", "length"),
    ]
    assert cut["usage"]["completion_tokens"] == 3
    assert [message.content for message in api.gateway.messages(created["id"])[2::2]] == [text for text, _ in choices]


async def test_a_full_session_answers_with_length(start: Any) -> None:
    """With `rolling_tokens: false` an answer ends with the window; from then on answers are empty."""
    api = await start(models={MODEL: 10})
    created = await api.create(truncation_strategy={"type": "rolling_tokens", "rolling_tokens": False})
    answers = [(await api.chat(created["id"], "hi")).json for _ in range(3)]
    choices = [(answer["choices"][0]["message"]["content"], answer["choices"][0]) for answer in answers]
    assert [(text, choice["finish_reason"]) for text, choice in choices] == [
        ("This is a scripted answer, n", "length"),
        ("", "length"),
        ("", "length"),
    ]
    assert len(api.gateway.messages(created["id"])) == 3, "the first turn only"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temperature": 2.1}, "InvalidParameter", "temperature"),
        ({"top_p": -0.1}, "InvalidParameter", "top_p"),
        ({"n": 0}, "InvalidParameter", "n"),
        ({"n": 129}, "InvalidParameter", "n"),
        ({"stream": "yes"}, "InvalidParameter", "stream"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "InvalidParameter", "stop"),
        ({"max_tokens": 0}, "InvalidParameter", "max_tokens"),
        ({"presence_penalty": 2.1}, "InvalidParameter", "presence_penalty"),
        ({"frequency_penalty": -2.1}, "InvalidParameter", "frequency_penalty"),
        ({"model": MODELS[1]}, "InvalidParameter", "model"),
        ({"context_id": None}, "MissingParameter.context_id", "context_id"),
        ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "OutofContextError", "messages"),
    ],
)
async def test_chat_refuses_what_is_out_of_range(api: Any, fields: dict[str, Any], code: str, param: str) -> None:
    """A field out of range is a 400 with code and field."""
    created = await api.create()
    body = {**api.chat_body(created["id"], "hello"), **fields}
    answer = await api.post("/context/chat/completions", body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (400, code, param)


async def test_an_expired_context_is_404(api: Any, clock: Any) -> None:
    """A context expired by ttl or by hand is a 404 `NotFound.*`, whose message says so."""
    by_ttl, by_hand = await api.create(ttl=3600), await api.create()
    clock.now += 3600
    assert api.gateway.expire(by_hand["id"])
    assert not api.gateway.expire(by_hand["id"])
    for created in (by_ttl, by_hand, {"id": "ctx-20241211104333-nope0"}):
        answer = await api.chat(created["id"])
        assert (answer.status, answer.error["code"], answer.error["param"]) == (
            404,
            "NotFound.context_id",
            "context_id",
        )
        assert "is not found, it may have expired. Request id: " in answer.error["message"]
        assert api.gateway.messages(created["id"]) is None


async def test_overlapping_calls_on_a_session_are_refused(start: Any, dictated: Any) -> None:
    """A second call on a busy session, plain or streamed, is a 403; other contexts are free."""
    api = await start(engine=dictated)
    created, other = await api.create(), await api.create()
    first = asyncio.create_task(api.chat(created["id"]))
    await dictated.started.wait()
    for stream in (False, True):
        answer = await api.chat(created["id"], stream=stream)
        assert (answer.status, answer.error["code"]) == (403, "OperationDenied.InvalidState")
        assert answer.error["message"].startswith("The specified context is in invalid state: InProgress. Request id:")
    dictated.say("x", None, "x", None)
    assert (await first).status == 200
    assert (await api.chat(other["id"])).status == 200


async def test_calls_on_a_prefix_overlap(start: Any, dictated: Any, until: Any) -> None:
    """A common prefix takes any number of concurrent calls."""
    api = await start(engine=dictated)
    created = await api.create(mode="common_prefix")
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(api.chat(created["id"])) for _ in range(20)]
        await until(lambda: len(dictated.prompts) == 20)
        dictated.say(*[None] * 20)
    assert [call.result().status for call in calls] == [200] * 20


# --- engines ----------------------------------------------------------------------------------------------------------


async def test_an_engine_is_told_everything(start: Any, dictated: Any) -> None:
    """An engine gets the whole request, the context's messages, the question, and the index of the reply."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say(None, None)
    await api.chat(created["id"], temperature=0.5, n=2, colour="blue")
    first, second = dictated.prompts
    assert (first.request.temperature, first.request.extra) == (0.5, {"colour": "blue"})
    assert (first.context, first.context_tokens, first.question) == ((system("Be kind."),), 2, (user("hello"),))
    assert {first.index, second.index} == {0, 1}


class Iterator:
    """An engine whose iterator is no generator and has no `aclose`."""

    def generate(self, prompt: Any) -> "Iterator":
        """Return it."""
        self.left = ["a", "", "b"]
        return self

    def __aiter__(self) -> "Iterator":
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def test_any_async_iterator_will_do(start: Any) -> None:
    """An engine may return any async iterator, and empty pieces."""
    api = await start(engine=Iterator())
    answer = await api.chat((await api.create())["id"])
    assert answer.json["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("secret detail"),
        ConnectionResetError(),
        TimeoutError(),
        5,
        b"5",
        "\ud800",
        asyncio.CancelledError(),
    ],
)
async def test_an_engine_that_fails_is_a_500(
    start: Any, dictated: Any, failure: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure of the engine is an `InternalServiceError`: reason only in the log, nothing stored, session free."""
    api = await start(engine=dictated)
    created = await api.create()
    dictated.say("half an ans", failure)
    answer = await api.chat(created["id"])
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        500,
        "InternalServiceError",
        "InternalServerError",
    )
    assert "secret" not in answer.body.decode()
    assert ("secret" in caplog.text) == isinstance(failure, RuntimeError)
    dictated.say("better", None)
    assert (await api.chat(created["id"])).status == 200
    assert [message.content for message in api.gateway.messages(created["id"])] == ["Be kind.", "hello", "better"]


@pytest.mark.parametrize("batches", [True, False])
async def test_an_engine_that_fails_to_begin_frees_the_session(start: Any, batches: bool) -> None:
    """A session whose engine raised before there was an iterator is free for the next call."""

    class Broken:
        all_replies = True

        def generate(self, prompt: Any) -> Any:
            raise RuntimeError

    engine = Broken()
    engine.batches = batches  # type: ignore[attr-defined]
    api = await start(engine=engine)
    created = await api.create()
    assert [(await api.chat(created["id"])).status for _ in range(2)] == [500, 500]


async def test_an_engine_may_refuse_in_the_services_words(start: Any, dictated: Any) -> None:
    """An `APIStatusError` of the engine is sent unchanged."""
    api = await start(engine=dictated)
    dictated.say(RateLimitError("Too fast.", status=429, code="RateLimitExceeded.EndpointRPMExceeded"))
    answer = await api.chat((await api.create())["id"])
    assert (answer.status, answer.error["code"], answer.error["type"]) == (
        429,
        "RateLimitExceeded.EndpointRPMExceeded",
        "TooManyRequests",
    )
    dictated.say(RateLimitError("No status."))
    assert (await api.chat((await api.create())["id"])).status == 429


# --- the rest ---------------------------------------------------------------------------------------------------------


async def test_models_are_listed(api: Any) -> None:
    """`GET /v1/models` lists the API reference's three models in OpenAI's shape."""
    answer = await api.request("GET", f"{api.gateway.base_url}/models", headers=api.key)
    assert answer.status == 200
    assert answer.json["object"] == "list"
    assert [model["id"] for model in answer.json["data"]] == list(MODELS)
    assert answer.json["data"][0] == {"id": MODELS[0], "object": "model", "created": 0, "owned_by": "ctxcache"}


class Endless:
    """An engine that never waits and never ends."""

    def __init__(self) -> None:
        self.count = 0

    async def generate(self, prompt: Any) -> AsyncIterator[str]:
        """Write."""
        while True:
            self.count += 1
            yield "x"


async def test_an_engine_that_never_waits_does_not_block_the_loop(start: Any, until: Any) -> None:
    """During an endless plain answer other requests are served."""
    engine = Endless()
    api = await start(engine=engine, models={MODEL: 1_000_000_000})
    endless = asyncio.create_task(api.chat((await api.create())["id"]))
    await until(lambda: engine.count > 2000)
    await api.create()
    assert not endless.done()
    endless.cancel()


@pytest.mark.parametrize(("fields", "text"), [({"max_tokens": 2}, "x" * 8), ({"stop": "xxx"}, "")])
async def test_a_reply_that_ended_wants_no_more(start: Any, fields: dict[str, Any], text: str) -> None:
    """An endless engine is closed when the reply reaches the token limit or a stop string."""
    api = await start(engine=Endless())
    answer = (await api.chat((await api.create())["id"], **fields)).json
    assert answer["choices"][0]["message"]["content"] == text
