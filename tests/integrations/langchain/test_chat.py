"""`ChatCtxCache`: settings, calls, what is shown and kept, tools and structured output."""

import asyncio
import copy
import inspect
import os
import pickle
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ctxcache
from ctxcache import AsyncSession, BadRequestError, Conversation, InvalidInputError, Prefix, system

from .conftest import KEY, MANUAL, MODEL, Served

pytest.importorskip("langchain_core")

from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel

from ctxcache.integrations.langchain import ChatCtxCache

PACKAGE = str(Path(ctxcache.__file__).parent)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Pair(BaseModel):
    """Two numbers."""

    a: int
    b: int


def given(served: Served) -> AsyncSession:
    """A session to make given objects of."""
    return AsyncSession(KEY, served.base_url)


# --- calls


def test_usage_and_metadata(served: Served) -> None:
    """An answer tells the cached tokens, why it ended, the model and the request."""
    with served.model() as model:
        answer = model.invoke("Hello")
    assert answer.text == "echo: Hello"
    assert answer.usage_metadata["input_token_details"]["cache_read"] > 200
    assert answer.usage_metadata["input_tokens"] > answer.usage_metadata["input_token_details"]["cache_read"]
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.response_metadata["request_id"]


def test_a_stream_adds_up_to_the_answer(served: Served) -> None:
    """The sum of the chunks is the answer: nothing twice, the usage and the reasons once."""
    with served.model() as model:
        whole = model.invoke("think: so it is")
        chunks = list(model.stream("think: so it is"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert total.text == whole.text == "so it is"
    assert total.additional_kwargs == whole.additional_kwargs == {"reasoning_content": "Let me think."}
    assert total.usage_metadata == whole.usage_metadata
    assert {**total.response_metadata, "request_id": ""} == {**whole.response_metadata, "request_id": ""}
    assert [chunk.chunk_position for chunk in chunks].count("last") == 1


async def test_one_context_for_all(served: Served) -> None:
    """Batches, threads, streams and models of the same settings share one context."""
    with served.model() as model, served.model(temperature=0.5) as other:
        questions = [f"question {number}" for number in range(20)]
        answers = await asyncio.to_thread(model.batch, questions)
        answers += await other.abatch(questions)
        assert [answer.text for answer in answers] == [f"echo: {question}" for question in questions * 2]
    assert len(served.engine.contexts) == 1


def test_parameters(served: Served) -> None:
    """Parameters of a call come before those of the model, which come before none; `stop` is either's."""
    with served.model(temperature=0.5, max_tokens=7, stop=["END"], chat_defaults={"user": "me"}) as model:
        model.invoke("one")
        model.bind(temperature=1.5).invoke("two", stop=["X"])
    one, two = [prompt.request for prompt in served.engine.prompts]
    assert (one.temperature, one.max_tokens, one.stop, one.user) == (0.5, 7, ("END",), "me")
    assert (two.temperature, two.max_tokens, two.stop, two.user) == (1.5, 7, ("X",), "me")


def test_several_replies(served: Served) -> None:
    """`n` replies are as many generations; a stream has one."""
    with served.model() as model:
        result = model.generate([[HumanMessage("Hi")]], n=3)
        assert [generation.text for generation in result.generations[0]] == ["echo: Hi"] * 3
        with pytest.raises(InvalidInputError, match="n must be 1 for a stream, got 2"):
            list(model.stream("Hi", n=2))


def test_messages_in_all_forms(served: Served) -> None:
    """Strings, pairs, mappings and messages are asked after the prefix, in order, with tool calls and results."""
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_9", "type": "tool_call"}
    with served.model() as model:
        model.invoke("text")
        asked = [("human", "1 + 2?"), AIMessage("", tool_calls=[call]), ToolMessage("3", tool_call_id="call_9")]
        assert model.invoke([*asked]).text == "done: 3"
        parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://x.example/y.png"}}]
        model.invoke([HumanMessage(parts)])
    assert [message.role for message in served.engine.prompts[1].question] == ["user", "assistant", "tool"]
    sent = served.engine.prompts[1].question[1].extra["tool_calls"][0]
    assert (sent["id"], sent["function"]["name"]) == ("call_9", "add")
    assert served.engine.prompts[2].question[0].content == tuple(parts)


async def test_leaving_a_stream(served: Served) -> None:
    """A stream that is left ends the call at the service, from a thread and from a loop."""

    def leave() -> None:
        for _ in model.stream("endless"):
            break

    with served.model() as model:
        await asyncio.to_thread(leave)
        assert await asyncio.to_thread(served.engine.closed.wait, 10)
        served.engine.closed.clear()
        stream = model.astream("endless")
        assert (await anext(stream)).text
        await stream.aclose()
        assert await asyncio.to_thread(served.engine.closed.wait, 10)
        assert model.asked.session.holdings() == {}


def test_tokens_are_told_to_callbacks(served: Served) -> None:
    """A handler hears of each token once."""

    class Tokens(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def on_llm_new_token(self, token: Any, **_: Any) -> None:
            self.heard.append(token)

    streamed, invoked = Tokens(), Tokens()
    with served.model() as model, served.model(streaming=True) as streaming:
        list(model.stream("one two", config={"callbacks": [streamed]}))
        streaming.invoke("one two", config={"callbacks": [invoked]})
    assert "".join(streamed.heard) == "".join(invoked.heard) == "echo: one two"


def test_errors_are_ours(served: Served) -> None:
    """An error of the service is of our family, whole or streamed."""
    with served.model() as model:
        with pytest.raises(BadRequestError, match="not that"):
            model.invoke("refuse: not that")
        with pytest.raises(BadRequestError, match="not that"):
            list(model.stream("refuse: not that"))
        with pytest.raises(InvalidInputError, match="model must be left out"):
            model.invoke("Hello", model="another")


# --- settings


def shown_locals(error: Exception) -> str:
    """The local variables of the package's frames, as a traceback may show them."""
    shown: list[str] = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in frame.f_locals.values() if PACKAGE in frame.f_code.co_filename else ():
            with suppress(AttributeError):  # of objects whose constructor failed
                shown.append(repr(value))
    assert shown
    return "".join(shown)


def test_wrong_settings(served: Served) -> None:
    """A wrong argument is named, with what must hold; the key is not shown."""
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"temperature": 9}, r"temperature must be a number in \[0, 2\], got 9"),
        ({"max_tokens": "many"}, "max_tokens: Input should be a valid integer"),
        ({"messages": []}, "messages must be a list of at least one message"),
        ({"messages": [object()]}, "messages must be a list of messages in a form that LangChain takes"),
        ({"messages": [("assistant", "hi"), ("nobody", "x")]}, "messages must be"),
        ({"messages": [HumanMessage([{"type": "image_url"}])]}, r"messages\[0\] must be a message in a form"),
        ({"ttl": 5}, "ttl must be"),
        ({"base_url": "nowhere"}, "base_url must be"),
        ({"model": ""}, "model must be"),
        ({"api_key": ""}, "api_key must be printable text"),
        ({"chat_defaults": {"extra_headers": {"Cookie": KEY}}}, "extra_headers'] must be left out"),
        ({"prefix": 3}, "prefix: Input should be an instance of Prefix"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InvalidInputError, match=message) as refused:
            served.model(**arguments)
        assert KEY not in shown_locals(refused.value)
    with pytest.raises(TypeError, match="no argument 'temprature': did you mean 'temperature'"):
        served.model(temprature=1)
    with pytest.raises(InvalidInputError, match=r"api_key: .*"):
        served.model(api_key=7)


async def test_wrong_given_objects(served: Served) -> None:
    """A given object comes alone: with a model, messages, a key or a cache of another, the first is named."""
    session = given(served)
    prefix = Prefix(session, model=MODEL, messages=[system("x")])
    conversation = Conversation(session, model=MODEL, messages=[system("x")])
    for arguments, field in [
        ({"prefix": prefix, "conversation": conversation}, "prefix"),
        ({"prefix": prefix, "model": "another"}, "model"),
        ({"conversation": conversation, "messages": ["x"]}, "messages"),
        ({"conversation": conversation, "api_key": KEY}, "api_key"),
        ({"conversation": conversation, "base_url": "http://127.0.0.1"}, "base_url"),
        ({"conversation": conversation, "ttl": 3600}, "ttl"),
        ({"conversation": conversation, "cache": True}, "cache"),
        ({"conversation": conversation, "temperature": 9}, "temperature"),
    ]:
        with pytest.raises(InvalidInputError) as refused:
            ChatCtxCache(**arguments)
        assert refused.value.field == field
    assert ChatCtxCache(prefix=prefix).model == MODEL


def test_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and URL come from the environment where they are not given."""
    monkeypatch.setenv("CTXCACHE_API_KEY", KEY)
    monkeypatch.setenv("CTXCACHE_BASE_URL", served.base_url)
    with ChatCtxCache(model=MODEL, messages=MANUAL) as model:
        assert model.invoke("Hi").text == "echo: Hi"


# --- what is shown and kept


class Traces(BaseCallbackHandler):
    """Notes all that LangChain tells of a call."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_chat_model_start(self, *told: Any, **named: Any) -> None:
        """Note the start."""
        self.seen.append((told, named))


def test_the_key_does_not_show(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is in no repr, trace, serialized form or pickle; nor are the messages in the repr."""
    traces = Traces()
    with served.model() as model:
        model.invoke("Hi", config={"callbacks": [traces]})
        shown = [repr(model), str(model), str(traces.seen), str(dumpd(model)), str(model.model_dump())]
        written = pickle.dumps(model)
    assert traces.seen
    assert not any(KEY in text for text in shown)
    assert KEY.encode() not in written
    assert MANUAL not in repr(model)
    monkeypatch.setenv("CTXCACHE_API_KEY", KEY)
    with pickle.loads(written) as read:
        assert read.invoke("Hi").text == "echo: Hi"
    assert len(served.engine.contexts) == 1


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_dumps_and_load(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that LangChain wrote is read again, with the key of the environment."""
    monkeypatch.setenv("CTXCACHE_API_KEY", KEY)
    with served.model(temperature=1) as model:
        written = dumpd(model)
    assert written["kwargs"]["api_key"] == {"lc": 1, "type": "secret", "id": ["CTXCACHE_API_KEY"]}
    options: dict[str, Any] = {"valid_namespaces": ["ctxcache"]}
    if "allowed_objects" in inspect.signature(load).parameters:  # langchain-core from 1.2.5
        options |= {"allowed_objects": [ChatCtxCache], "secrets_from_env": True}
    with load(written, **options) as read:
        assert read.temperature == 1
        assert read.invoke("Hi").text == "echo: Hi"


async def test_given_objects_are_neither_written_nor_pickled(served: Served) -> None:
    """A model of a given object is written as its repr, and refuses to be pickled."""
    model = ChatCtxCache(prefix=Prefix(given(served), model=MODEL, messages=[system("x")]))
    assert dumpd(model)["type"] == "not_implemented"
    with pytest.raises(InvalidInputError, match="cannot be pickled"):
        pickle.dumps(model)


def test_copies_share_the_context(served: Served) -> None:
    """Copies, deep ones too, and configured models ask the same context."""
    with served.model() as model:
        assert copy.deepcopy(model).invoke("Hi").text == "echo: Hi"
        assert model.model_copy(update={"max_tokens": 3}).asked is model.asked
        configurable = model.configurable_fields(temperature=ConfigurableField(id="heat"))
        assert configurable.with_config(configurable={"heat": 1.5}).invoke("Hi").text == "echo: Hi"
    assert len(served.engine.contexts) == 1
    assert served.engine.prompts[-1].request.temperature == 1.5


def test_the_cache_of_langchain(served: Served) -> None:
    """LangChain's cache tells models with other messages apart."""
    cache = InMemoryCache()
    with served.model(cache=cache) as model, served.model(cache=cache, messages=["another manual"]) as other:
        for each in (model, model, other):
            assert each.invoke("Hi").text == "echo: Hi"
    assert len(served.engine.prompts) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process(served: Served) -> None:
    """A forked process makes connections of its own, and the parent's go on."""
    with served.model() as model:
        model.invoke("before")
        child = os.fork()
        if child == 0:
            os._exit(0 if model.invoke("child").text == "echo: child" else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert model.invoke("after").text == "echo: after"


# --- tools and structured output


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        (False, None),
        (True, "required"),
        ("any", "required"),
        ("auto", "auto"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_tool_choice(served: Served, choice: Any, sent: Any) -> None:
    """A choice is sent in OpenAI's form; the name of a tool will do."""
    with served.model() as model:
        model.bind_tools([add], tool_choice=choice, strict=True).invoke("Hello")
    request: Any = served.engine.prompts[0].request
    assert (request.tool_choice or None) == sent
    assert request.tools[0]["function"]["strict"] is True


def test_a_wrong_tool_choice(served: Served) -> None:
    """A name that no tool has is refused before anything is sent."""
    with served.model() as model, pytest.raises(InvalidInputError, match=r"tool_choice .*add, got 'sub'"):
        model.bind_tools([add], tool_choice="sub")


def test_tool_calls_both_ways(served: Served) -> None:
    """A call comes whole or streamed, as the same; the answer with the call goes back with the result."""
    with served.model() as model:
        bound = model.bind_tools([add])
        asked = [HumanMessage("Use add for 3 and 4")]
        whole = bound.invoke(asked)
        total: Any = None
        for chunk in bound.stream(asked):
            total = chunk if total is None else total + chunk
        assert whole.tool_calls == total.tool_calls
        (call,) = whole.tool_calls
        assert (call["name"], call["args"]) == ("add", {"a": 3, "b": 4})
        assert whole.response_metadata["finish_reason"] == total.response_metadata["finish_reason"] == "tool_calls"
        for answer in (whole, total):
            assert bound.invoke([*asked, answer, add.invoke(call)]).text == "done: 7"


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(served: Served, method: Any) -> None:
    """Answers are objects of the class; with `include_raw` errors do not raise."""
    with served.model() as model:
        assert model.with_structured_output(Pair, method=method).invoke("3 and 4") == Pair(a=3, b=4)
        raw = model.with_structured_output(Pair, method=method, include_raw=True).invoke("3 and 4")
        assert (raw["parsed"], raw["parsing_error"]) == (Pair(a=3, b=4), None)
        schema = Pair.model_json_schema()
        assert model.with_structured_output(schema, method=method).invoke("3 and 4") == {"a": 3, "b": 4}
        with pytest.raises(InvalidInputError, match="method must be"):
            model.with_structured_output(Pair, method="magic")


def test_structured_output_that_is_none(served: Served) -> None:
    """An answer without the fields is an error, which `include_raw` returns."""
    with served.model() as model:
        raw = model.with_structured_output(Pair, method="json_mode", include_raw=True).invoke("no fields")
    assert raw["parsed"] is None
    assert "Pair" in str(raw["parsing_error"])
