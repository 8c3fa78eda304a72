"""The engine protocol, through a gateway: pieces, usage, tools, several replies, and the optional methods."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from ctxcache.errors import APIConnectionError, BadRequestError, NotFoundError
from ctxcache.gateway import Gateway, ManagedEngine, NewContext, Piece, Prompt
from ctxcache.models import CompletionTokensDetails, FunctionCall, Message, PromptTokensDetails, ToolCall, Usage, system

CALL = ToolCall(id="call_1", function=FunctionCall(name="weather", arguments='{"city":"Delft"}'))
CALL_JSON = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Delft"}'},
}


class Writing:
    """Yields the given pieces and notes the prompts."""

    def __init__(self, *pieces: Any, all_replies: bool = False) -> None:
        self.pieces = pieces
        self.all_replies = all_replies
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt) -> AsyncIterator[str | Piece]:
        """Write a reply."""
        self.prompts.append(prompt)
        for piece in self.pieces:
            yield piece


async def answered(start: Any, engine: Any, **fields: Any) -> tuple[Any, Any]:
    """Return the plain and the streamed answer of an engine; the streamed one by openai's rules of merging."""
    api = await start(engine=engine)
    created = await api.create(mode="common_prefix")
    plain = await api.chat(created["id"], **fields)
    assert plain.status == 200, plain.body
    streamed = await api.chat(created["id"], stream=True, stream_options={"include_usage": True}, **fields)
    merged: dict[int, dict[str, Any]] = {}
    for chunk in streamed.chunks:
        for choice in chunk["choices"]:
            reply = merged.setdefault(choice["index"], {"content": "", "reasoning_content": "", "tool_calls": {}})
            delta = choice["delta"]
            reply["content"] += delta.get("content") or ""
            reply["reasoning_content"] += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                known = reply["tool_calls"].setdefault(call["index"], {"name": "", "arguments": ""})
                known["id"] = call.get("id") or known["id"]
                for name in ("name", "arguments"):
                    known[name] += call["function"].get(name, "")
            if choice.get("logprobs"):
                reply.setdefault("logprobs", []).extend(choice["logprobs"]["content"])
            reply["finish_reason"] = choice["finish_reason"]
    return plain.json, (merged, streamed.chunks[-1]["usage"])


async def test_everything_a_piece_carries_reaches_the_client(start: Any) -> None:
    """Text, reasoning, tool calls, log probabilities and finish reason are in plain and in streamed answers."""
    token = [{"token": "Hi", "logprob": -0.5, "top_logprobs": []}]
    engine = Writing(
        Piece(reasoning="Let me "),
        Piece(reasoning="think."),
        Piece(text="Hi", logprobs={"content": token}),
        Piece(text=" 你", logprobs={"content": token}),
        Piece(tool_calls=(CALL,)),
        Piece(finish_reason="tool_calls"),
    )
    plain, (merged, _) = await answered(start, engine)
    assert plain["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi 你",
                "reasoning_content": "Let me think.",
                "tool_calls": [CALL_JSON],
            },
            "logprobs": {"content": token * 2},
            "finish_reason": "tool_calls",
        }
    ]
    assert merged == {
        0: {
            "content": "Hi 你",
            "reasoning_content": "Let me think.",
            "tool_calls": {0: {"id": "call_1", **CALL_JSON["function"]}},
            "logprobs": token * 2,
            "finish_reason": "tool_calls",
        }
    }


FRAGMENTS = (
    {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x"'}},
    {"index": 0, "function": {"arguments": ":1}"}},
    {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}, "signature": "s"},
)


@pytest.mark.parametrize(
    "pieces",
    [
        [Piece(tool_calls=(fragment,)) for fragment in FRAGMENTS],
        [Piece(tool_calls=FRAGMENTS)],
        [
            Piece(tool_calls=({"id": "a", "function": {"name": "f", "arguments": '{"x":1}'}},)),
            Piece(tool_calls=({"id": "b", "function": {"name": "g", "arguments": "{}"}, "signature": "s"},)),
        ],
    ],
    ids=["a fragment a piece", "all in one", "whole calls"],
)
async def test_tool_calls_come_whole_or_in_fragments(start: Any, pieces: list[Piece]) -> None:
    """Fragments are passed on and merged by `index`, whole calls are numbered; unknown fields of a call stay."""
    plain, (merged, _) = await answered(start, Writing(*pieces))
    choice = plain["choices"][0]
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}, "signature": "s"},
    ]
    assert merged[0]["tool_calls"] == {
        0: {"id": "a", "name": "f", "arguments": '{"x":1}'},
        1: {"id": "b", "name": "g", "arguments": "{}"},
    }
    assert choice["finish_reason"] == merged[0]["finish_reason"] == "tool_calls", "the default after a tool call"


@pytest.mark.parametrize("limits", [{"max_tokens": 1}, {"stop": "two"}, {"max_tokens": 1, "stop": ["two", "x"]}])
async def test_an_engine_of_pieces_keeps_the_limits_itself(start: Any, limits: dict[str, Any]) -> None:
    """Text of a `Piece` is not cut, and its finish reason is believed; the same text as `str` is cut."""
    plain, (merged, _) = await answered(
        start, Writing(Piece(text="one two three four", finish_reason="length")), **limits
    )
    assert plain["choices"][0]["message"]["content"] == merged[0]["content"] == "one two three four"
    assert plain["choices"][0]["finish_reason"] == merged[0]["finish_reason"] == "length"
    plain, (merged, _) = await answered(start, Writing("one two three four"), **limits)
    assert plain["choices"][0]["message"]["content"] == merged[0]["content"] == "one "


async def test_a_prompt_has_the_limits_of_request_and_window(start: Any) -> None:
    """`max_tokens` is the smaller of the request's and the room in the window; `stop` is always a tuple."""
    engine = Writing("x")
    api = await start(engine=engine, models={"small": 10, "Doubao-1.5-pro-32k": 1000})
    created = await api.create(model="small", messages=[{"role": "system", "content": "abcd"}])
    for fields in ({}, {"max_tokens": 3, "stop": "a"}, {"max_tokens": 300, "stop": ["a", "b"]}):
        assert (await api.chat(created["id"], "efgh", model="small", **fields)).status == 200
    assert [(prompt.max_tokens, prompt.stop) for prompt in engine.prompts] == [(8, ()), (3, ("a",)), (8, ("a", "b"))]


async def test_the_whole_request_reaches_the_engine(start: Any) -> None:
    """Tools, further documented fields and unknown ones are in `prompt.request`; a null is left out."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    fields = {"tools": tools, "response_format": {"type": "json_object"}, "thinking": {"type": "auto"}, "seed": 7}
    engine = Writing("x")
    await answered(start, engine, **fields, top_k=None)
    request = engine.prompts[0].request
    assert list(request.tools) == tools  # type: ignore[arg-type]
    assert (request.response_format, request.thinking) == (fields["response_format"], fields["thinking"])
    assert request.extra == {"seed": 7}


async def test_a_key_has_a_name_that_does_not_tell_the_key(start: Any) -> None:
    """`client` is the same for each call with a key, another for another key, and does not contain the key."""
    names = []
    for key in ("sk-first", "sk-first", "sk-second"):
        engine = Writing("x")
        api = await start(engine=engine, api_key=key)
        assert (await api.chat((await api.create())["id"])).status == 200
        names.append(engine.prompts[0].client)
    assert names[0] == names[1] != names[2]
    assert "first" not in names[0]
    assert len(names[0]) >= 32


# --- usage ------------------------------------------------------------------------------------------------------------


COUNTS = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@pytest.mark.parametrize(
    ("details", "told"),
    [
        ({}, {}),
        (
            {"prompt_tokens_details": PromptTokensDetails(cached_tokens=0)},
            {"prompt_tokens_details": {"cached_tokens": 0}},
        ),
        (
            {
                "prompt_tokens_details": PromptTokensDetails(cached_tokens=6),
                "completion_tokens_details": CompletionTokensDetails(reasoning_tokens=3),
            },
            {"prompt_tokens_details": {"cached_tokens": 6}, "completion_tokens_details": {"reasoning_tokens": 3}},
        ),
    ],
    ids=["absent", "0", "6"],
)
async def test_an_answer_claims_what_the_engine_reports(start: Any, details: Any, told: Any) -> None:
    """The usage is the engine's own: cached tokens absent, 0 or n, as reported. The last report counts."""
    engine = Writing(Piece(usage=Usage(prompt_tokens=1)), Piece(text="x"), Piece(usage=Usage(**COUNTS, **details)))
    plain, (_, usage) = await answered(start, engine)
    assert plain["usage"] == usage == {**COUNTS, **told}


async def test_without_a_report_no_cached_tokens_are_claimed(start: Any) -> None:
    """Where an engine of pieces reports nothing, the gateway counts, and says nothing of a cache."""
    plain, (_, usage) = await answered(start, Writing(Piece(text="abcd", reasoning="efgh")), stop="x")
    assert plain["usage"] == usage == {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


# --- several replies --------------------------------------------------------------------------------------------------


async def test_one_call_may_write_all_replies(start: Any) -> None:
    """With `all_replies` the engine is called once for `n` replies, and `index` tells the pieces apart."""
    pieces = [Piece(text="a", index=1), Piece(text="b"), Piece(text="c", index=2, finish_reason="length")]
    usage = Piece(usage=Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12))
    engine = Writing(*pieces, usage, all_replies=True)
    plain, (merged, streamed_usage) = await answered(start, engine, n=3)
    assert [(prompt.index, prompt.replies) for prompt in engine.prompts] == [(0, 3)] * 2
    assert [choice["message"]["content"] for choice in plain["choices"]] == ["b", "a", "c"]
    assert [choice["finish_reason"] for choice in plain["choices"]] == ["stop", "stop", "length"]
    assert [merged[index]["content"] for index in range(3)] == ["b", "a", "c"]
    assert plain["usage"] == streamed_usage == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


async def test_a_call_for_each_reply_adds_up(start: Any) -> None:
    """Called once for each of `n` replies, the reports are added up, and the prompt counts once."""
    usage = Usage(
        prompt_tokens=9,
        completion_tokens=2,
        total_tokens=11,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=8),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=1),
    )
    engine = Writing(Piece(text="x", index=7), Piece(usage=usage))
    plain, _ = await answered(start, engine, n=3)
    assert [(prompt.index, prompt.replies) for prompt in engine.prompts[:3]] == [(0, 1), (1, 1), (2, 1)]
    assert [choice["message"]["content"] for choice in plain["choices"]] == ["x"] * 3, "the index is the call's"
    assert plain["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 6,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


@pytest.mark.parametrize(
    "wrong",
    [
        Piece(text="x", index=2),
        Piece(text="x", index=-1),
        Piece(text="\ud800"),
        Piece(reasoning="\ud800"),
        Piece(tool_calls=({"function": object()},)),
        Piece(logprobs={"content": [float("nan"), object()]}),
        b"x",
        None,
    ],
    ids=repr,
)
async def test_a_wrong_piece_is_a_failure_of_the_engine(start: Any, caplog: Any, wrong: Any) -> None:
    """A piece that is none, or that JSON cannot carry, is logged, and the client gets a 500 or an error event."""
    api = await start(engine=Writing(Piece(text="a"), wrong, all_replies=True))
    created = await api.create()
    answer = await api.chat(created["id"], n=2)
    assert (answer.status, answer.error["code"]) == (500, "InternalServiceError")
    streamed = await api.chat(created["id"], n=2, stream=True)
    assert json.loads(streamed.data[-1])["error"]["code"] == "InternalServiceError"
    assert "the engine failed" in caplog.text
    assert api.gateway.messages(created["id"]) == (system("Be kind."),), "nothing is stored"


# --- a session with tools ---------------------------------------------------------------------------------------------


class Weather:
    """Asks for the weather, and tells the result of the tool."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[str | Piece]:
        """Call the tool, or answer from its result."""
        last = prompt.messages[-1]
        if last.role == "tool":
            called = prompt.context[-1].extra["tool_calls"][0]
            yield Piece(text=f"{called['function']['name']}: {last.text}", finish_reason="stop")
        else:
            yield Piece(tool_calls=(CALL,))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_session_keeps_tool_calls(start: Any, stream: bool) -> None:
    """The assistant's message is stored with its tool calls, and the next turn may be the tool's result."""
    api = await start(engine=Weather())
    created = await api.create()
    assert (await api.chat(created["id"], "Is it raining?", stream=stream)).status == 200
    result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    answer = await api.chat(created["id"], messages=[result])
    assert answer.json["choices"][0]["message"]["content"] == "weather: rain"
    held = api.gateway.messages(created["id"])
    assert [message.role for message in held] == ["system", "user", "assistant", "tool", "assistant"]
    assert (held[2].content, held[2].extra) == (None, {"tool_calls": [CALL_JSON]})
    assert held[3].extra == {"tool_call_id": "call_1"}


async def test_a_session_keeps_no_reasoning(start: Any) -> None:
    """The stored message has the text alone."""
    api = await start(engine=Writing(Piece(reasoning="Hm."), Piece(text="Yes.")))
    created = await api.create()
    await api.chat(created["id"])
    held = api.gateway.messages(created["id"])[-1]
    assert (held.content, held.extra) == ("Yes.", {})


# --- optional methods -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 0])
async def test_an_engine_may_count_tokens(start: Any, size: int) -> None:
    """The engine's counts decide what fits; no message counts less than 1."""

    class Counting(Writing):
        asked: list[Any] = []  # noqa: RUF012  # one object

        async def count_tokens(self, model: str, messages: Any) -> list[int]:
            self.asked.append((model, messages))
            return [size] * len(messages)

    engine = Counting("x")
    api = await start(engine=engine, models={"Doubao-1.5-pro-32k": 25})
    created = await api.create()
    assert created["usage"]["prompt_tokens"] == max(1, size)
    assert (await api.chat(created["id"], "a")).status == 200
    assert engine.prompts[0].context_tokens == max(1, size)
    assert engine.prompts[0].max_tokens == 25 - 2 * max(1, size)
    both = [{"role": "user", "content": "a"}] * 2
    answer = await api.chat(created["id"], messages=both)
    assert answer.status == (400 if size else 200)
    assert engine.asked[0] == ("Doubao-1.5-pro-32k", (system("Be kind."),))


@pytest.mark.parametrize("length", [1000, 50_000], ids=["small", "read in a thread"])
async def test_an_engine_that_counts_fewer_tokens(start: Any, length: int) -> None:
    """The gateway's rule refuses nothing that fits by the engine's count, however many characters there are."""

    class Counting(Writing):
        async def count_tokens(self, model: str, messages: Any) -> list[int]:
            return [1] * len(messages)

    api = await start(engine=Counting("x"), models={"Doubao-1.5-pro-32k": 10})
    created = await api.create(messages=[{"role": "system", "content": "x" * length}])
    assert created["usage"]["prompt_tokens"] == 1
    assert (await api.chat(created["id"], "x" * length)).status == 200
    answer = await api.chat(created["id"], messages=[{"role": "user", "content": "x"}] * 10)
    assert (answer.status, answer.error["code"]) == (400, "OutofContextError")


@pytest.mark.parametrize("counts", [[], [1, 2], [1.5], None, ValueError("secret")])
async def test_a_wrong_count_is_a_failure_of_the_engine(start: Any, counts: Any) -> None:
    """Counts that do not fit the messages make no context."""

    class Wrong(Writing):
        async def count_tokens(self, model: str, messages: Any) -> Any:
            if isinstance(counts, Exception):
                raise counts
            return counts

    api = await start(engine=Wrong("x"))
    body = {"model": "Doubao-pro-32k", "messages": [{"role": "user", "content": "x"}]}
    answer = await api.post("/context/create", body)
    assert (answer.status, answer.error["code"]) == (500, "InternalServiceError")
    assert "secret" not in answer.body.decode()


class Noting(Writing):
    """Has every optional method, and notes each call; `fails` are raised by the methods of that name."""

    def __init__(self, **fails: BaseException) -> None:
        super().__init__("x")
        self.calls: list[Any] = []
        self.fails = fails

    def _note(self, name: str, *value: Any) -> None:
        self.calls.append((name, *value))
        if name in self.fails:
            raise self.fails[name]

    async def start(self) -> None:
        """Get ready."""
        self._note("start")

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> list[int]:
        """Count."""
        return [2] * len(messages)

    async def prepare(self, context: NewContext) -> None:
        """Warm up."""
        self._note("prepare", context)

    def forget(self, context_id: str) -> None:
        """Forget."""
        self._note("forget", context_id)

    async def aclose(self) -> None:
        """Close."""
        self._note("aclose")


def managed(engine: ManagedEngine) -> ManagedEngine:
    """Show mypy that an engine has all optional members."""
    return engine


async def test_an_engine_is_started_told_of_contexts_and_closed(start: Any, clock: Any) -> None:
    """`start` before the gateway listens, `prepare` on create, `forget` at expiry, `aclose` with the gateway."""
    engine = Noting()
    managed(engine)
    api = await start(engine=engine)
    first = await api.create(ttl=3600)
    second = await api.create(mode="common_prefix", ttl=7200)
    assert [name for name, *_ in engine.calls] == ["start", "prepare", "prepare"]
    told = engine.calls[1][1]
    assert (told.id, told.model, told.mode, told.tokens) == (first["id"], first["model"], "session", 2)
    assert (told.messages, told.client != "") == ((system("Be kind."),), True)
    clock.now += 3601
    assert (await api.chat(second["id"])).status == 200
    assert engine.calls[3:] == [("forget", first["id"])]
    api.gateway.expire(second["id"])
    assert not api.gateway.expire(second["id"])
    assert engine.calls[4:] == [("forget", second["id"])]
    await api.gateway.aclose()
    assert engine.calls[5:] == [("aclose",)]


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (
            NotFoundError("No.", status=404, code="InvalidEndpointOrModel.NotFound"),
            404,
            "InvalidEndpointOrModel.NotFound",
        ),
        (BadRequestError("Too long.", status=400, code="OutofContextError"), 400, "OutofContextError"),
        (RuntimeError("secret"), 500, "InternalServiceError"),
    ],
)
async def test_a_context_that_cannot_be_prepared_is_none(start: Any, failure: Any, status: int, code: str) -> None:
    """The create fails with what `prepare` raises, and the context ends at once."""
    engine = Noting(prepare=failure)
    api = await start(engine=engine)
    answer = await api.post(
        "/context/create", {"model": "Doubao-pro-32k", "messages": [{"role": "user", "content": "x"}]}
    )
    assert (answer.status, answer.error["code"]) == (status, code)
    assert "secret" not in answer.body.decode()
    assert engine.calls[2:] == [("forget", engine.calls[1][1].id)]
    assert api.gateway.messages(engine.calls[1][1].id) is None


async def test_a_client_that_leaves_during_prepare_leaves_no_context(start: Any, until: Callable[..., Any]) -> None:
    """A create whose client has left keeps no context: nobody knows the id."""

    class Slow(Noting):
        async def prepare(self, context: NewContext) -> None:
            await super().prepare(context)
            await asyncio.Event().wait()

    engine = Slow()
    api = await start(engine=engine)
    creating = asyncio.ensure_future(api.create())
    await until(lambda: len(engine.calls) == 2)
    creating.cancel()
    await until(lambda: len(engine.calls) == 3)
    assert engine.calls[2] == ("forget", engine.calls[1][1].id)


async def test_an_engine_that_does_not_start_ends_the_start(start: Any) -> None:
    """A gateway whose engine fails to start does not listen; one that cannot listen closes the engine."""
    with pytest.raises(RuntimeError, match="no model"):
        await Gateway(engine=Noting(start=RuntimeError("no model"))).start()
    api = await start()
    engine = Noting()
    with pytest.raises(APIConnectionError, match="cannot listen"):
        await Gateway(engine=engine, port=api.gateway.port).start()
    assert engine.calls == [("start",), ("aclose",)]
