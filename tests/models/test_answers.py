"""The answers: tolerant, frozen, with the raw JSON at hand."""

import copy
import json
import pickle

import attrs
import pytest

from ctxcache import (
    ProtocolError,
    models,
    user,
)
from ctxcache.codec import decode_chunk, decode_completion, decode_context
from ctxcache.models import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    Context,
    ContextRequest,
    FunctionCall,
    PromptTokensDetails,
    ToolCall,
    Usage,
)

HELLO = [user("Hello")]
CALL = ToolCall(id="call-1", function=FunctionCall(name="weather", arguments='{"city": "Bern"}'))


def chat(**fields):
    """A chat request with what is required."""
    return ChatRequest(**{"context_id": "c", "model": "m", "messages": HELLO, **fields})


def context(**fields):
    """A context request with what is required."""
    return ContextRequest(**{"model": "m", "messages": HELLO, **fields})


def test_usage():
    """`prompt_tokens` includes the cached ones: fresh is the difference."""
    usage = Usage(prompt_tokens=100, completion_tokens=5, prompt_tokens_details=PromptTokensDetails(cached_tokens=80))
    assert (usage.cached_tokens, usage.fresh_tokens) == (80, 20)
    assert (Usage(prompt_tokens=7).cached_tokens, Usage(prompt_tokens=7).fresh_tokens) == (0, 7)


def test_text_and_finish_reason():
    """`text` and `finish_reason` are those of choice 0, wherever it stands; empty and None without it."""

    def choice(index, text):
        return Choice(index=index, message=AssistantMessage(content=text), finish_reason=f"r{index}")

    answer = ChatCompletion(choices=(choice(1, "b"), choice(0, "a")))
    assert (answer.text, answer.finish_reason) == ("a", "r0")
    assert (ChatCompletion(choices=(choice(1, "b"),)).text, ChatCompletion().text) == ("", "")
    assert (ChatCompletion(choices=(choice(1, "b"),)).finish_reason, ChatCompletion().finish_reason) == (None, None)
    assert ChatCompletion(choices=(choice(0, None),)).text == ""
    chunk = ChatCompletionChunk(choices=(ChunkChoice(index=1, delta=ChoiceDelta(content="b")),))
    assert (chunk.text, ChatCompletionChunk().text, ChatCompletionChunk(choices=(ChunkChoice(),)).text) == ("", "", "")


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b'{"x":"\x01"}', b'{"x":1', b"\xff"], ids=range(5))
@pytest.mark.parametrize("kind", [ChatCompletion, ChatCompletionChunk])
def test_raw_that_cannot_be_read(kind, data):
    """JSON that Python cannot read is a `ProtocolError` from `raw`, with nothing of the parser's hanging on it."""
    with pytest.raises(ProtocolError, match="cannot be read as JSON") as caught:
        _ = kind(raw_json=data).raw
    assert caught.value.__context__ is caught.value.__cause__ is None


def test_raw_of_what_was_made_by_hand():
    """An object that came from no JSON says as `raw` the JSON it stands for, without what is beside the JSON."""
    made = ChatCompletion(
        id="a", choices=(Choice(message=AssistantMessage(content="Hi", tool_calls=(CALL,))),), request_id="r"
    )
    message = {"role": "assistant", "content": "Hi", "reasoning_content": None, "tool_calls": [CALL.to_dict()]}
    assert made.raw["choices"] == [{"index": 0, "message": message, "finish_reason": None, "logprobs": None}]
    assert "request_id" not in made.raw
    assert Context(id="c").raw["id"] == "c"
    assert decode_completion(made.to_json().encode()) == made
    assert "error" not in ChatCompletionChunk(error="x").raw


@pytest.mark.parametrize("kind", [decode_completion, decode_context, decode_chunk])
def test_to_dict_is_json(kind):
    """NaN and half a character, which JSON cannot carry, are replaced: a web framework can send what came."""
    found = kind(rb'{"id":"c","choices":[{"message":{}}],"x":[NaN,-Infinity],"y":{"\ud83d":"a\uDE00b \ud83d\ude00"}}')
    assert found.to_dict()["x"] == [None, None]
    assert found.to_dict()["y"] == {"\ufffd": "a\ufffdb \U0001f600"}
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == json.loads(found.to_json().encode())


@pytest.mark.parametrize("number", [b"1e999", b"-1E+400", b"9" * 400 + b".5", b"9" * 1200, b"-" + b"1" * 5000])
@pytest.mark.parametrize("kind", [decode_completion, decode_context, decode_chunk])
def test_to_dict_without_infinities(kind, number):
    """A number beyond a float's range becomes None, which every reader of JSON takes."""
    found = kind(b'{"id":"c","choices":[{"message":{}}],"x":[%b,1.5,-7,1e-999]}' % number)
    assert found.to_dict()["x"] == [None, 1.5, -7, 0]
    assert json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", [name for name in models.__all__ if attrs.has(getattr(models, name, None))])
def test_everything_that_comes_back_is_plain_data(name):
    """Every part of an answer gives plain data and JSON."""
    kind = getattr(models, name)
    if not kind.__module__.endswith("answers"):
        return
    required = {"message": AssistantMessage(content="Hi", tool_calls=(CALL,)), "type": "rolling_tokens", "id": "c"}
    made = kind(**{f.name: required[f.name] for f in attrs.fields(kind) if f.default is attrs.NOTHING})
    assert json.loads(made.to_json()) == json.loads(json.dumps(made.to_dict())) == made.to_dict()


def test_to_dict_and_to_json():
    """What came is given back as it came, unknown fields included; of a part, what is known of it."""
    body = {"id": "c", "choices": [{"message": {"content": "h\u00e9", "new": 1}}], "newer": [1]}
    completion = decode_completion(json.dumps(body).encode())
    assert completion.to_dict() == completion.raw == body
    assert json.loads(completion.to_json()) == body
    assert "h\u00e9" in completion.to_json()
    assert Usage(prompt_tokens=3, prompt_tokens_details=PromptTokensDetails(cached_tokens=2)).to_dict() == {
        "prompt_tokens": 3,
        "completion_tokens": 0,
        "total_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": None,
    }
    with pytest.raises(ValueError, match="no JSON number"):
        Choice(message=AssistantMessage(), logprobs={"a": float("nan")}).to_dict()


def test_tool_calls():
    """A tool call's arguments are parsed when asked for; what is no JSON is an error that shows it."""
    completion = ChatCompletion(choices=(Choice(message=AssistantMessage(tool_calls=(CALL,))),))
    assert completion.tool_calls == completion.message.tool_calls == (CALL,)
    assert CALL.json() == {"city": "Bern"}
    assert ToolCall(function=FunctionCall(name="f", arguments=" ")).json() == {}
    for arguments in ("{", "[" * 100_000):
        with pytest.raises(ProtocolError, match="the arguments of f must be JSON") as caught:
            ToolCall(function=FunctionCall(name="f", arguments=arguments)).json()
        assert caught.value.body == arguments[:2000]
    assert ChatCompletion().tool_calls == ()
    assert ChatCompletion().message == AssistantMessage()


def test_cached_tokens():
    """The cached tokens of an answer are those of its usage, 0 without one."""
    assert ChatCompletion().cached_tokens == 0
    usage = Usage(prompt_tokens_details=PromptTokensDetails(cached_tokens=5))
    assert ChatCompletion(usage=usage).cached_tokens == 5


@pytest.mark.parametrize("name", [name for name in models.__all__ if attrs.has(getattr(models, name, None))])
def test_frozen_values(name):
    """Every model is a frozen attrs class with slots, documented, and pickles."""
    kind = getattr(models, name)
    assert kind.__doc__
    assert "__dict__" not in dir(kind)
    required = {
        "messages": HELLO,
        "message": AssistantMessage(),
        "role": "user",
        "content": "x",
        "type": "rolling_tokens",
    }
    made = kind(**{f.name: required.get(f.name, "x") for f in attrs.fields(kind) if f.default is attrs.NOTHING})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, attrs.fields(kind)[0].name, 1)
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)


def test_ids_do_not_count_in_comparisons():
    """Two answers are equal by what they say, not by the ids of their transport."""
    assert ChatCompletion(id="c", request_id="a", raw_json=b"x") == ChatCompletion(id="c", request_id="b")
