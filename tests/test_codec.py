"""JSON and back: requests travel whole, answers are read tolerantly, and what is not JSON is an error of ours."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcache import InvalidInputError, Message, ProtocolError, TruncationStrategy, user
from ctxcache.codec import decode_chunk, decode_completion, decode_context, decode_json, decode_request, encode
from ctxcache.models import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionTokensDetails,
    Context,
    ContextRequest,
    FunctionCall,
    PromptTokensDetails,
    ToolCall,
    Usage,
)

relaxed = settings(deadline=None, max_examples=200)

# --- there and back ---------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False)
# null reads as left out, so there is none at the top of what is sent
inner = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | number | text,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(text, inner | st.none(), max_size=3),
    max_leaves=5,
)
own_keys = frozenset({"role", "content", "model", "messages", "context_id", "mode", "ttl", "truncation_strategy"})


def extra(kind=None):
    """Further fields, whose names are not the model's own."""
    taken = own_keys | ({field.name for field in kind.__attrs_attrs__} if kind else set())
    return st.dictionaries(name.filter(lambda key: key not in taken), inner, max_size=3)


message = st.builds(Message, st.sampled_from(["system", "user"]), text, extra=extra())
window = st.integers(1, 10**6)
strategy = st.fixed_dictionaries(
    {"type": st.sampled_from(["last_history_tokens", "rolling_tokens"])},
    optional={
        "last_history_tokens": window,
        "rolling_tokens": st.booleans(),
        "max_window_tokens": window,
        "rolling_window_tokens": window,
    },
).map(lambda fields: TruncationStrategy(**fields))


def requests(kind, required, optional):
    """Requests of a kind, with any of the optional fields."""
    fields = st.fixed_dictionaries({**required, "extra": extra(kind)}, optional=optional)
    return fields.map(lambda given: kind(**given))


contexts = requests(
    ContextRequest,
    {"model": name, "messages": st.lists(message, min_size=1, max_size=3)},
    {"mode": st.just("session"), "ttl": st.integers(3600, 604800), "truncation_strategy": strategy},
)
chats = requests(
    ChatRequest,
    {"context_id": name, "model": name, "messages": st.lists(message, min_size=1, max_size=3)},
    {
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "n": st.integers(1, 100),
        "stream": st.booleans(),
        "stop": name | st.lists(name, min_size=1, max_size=4),
        "max_tokens": st.integers(1, 10**9),
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.integers(-2, 2),
        "stream_options": st.just({"include_usage": True}),
        "user": name,
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 20),
        "logit_bias": st.dictionaries(text, st.floats(-100, 100), max_size=3),
    },
)


@relaxed
@given(contexts | chats)
def test_there_and_back(request):
    """What one side asks, the other side reads: `decode(encode(x)) == x`, for every request."""
    data = encode(request)
    assert decode_request(type(request), data) == request
    assert json.loads(data).keys() >= {"model", "messages"}
    assert b"UNSET" not in data or "UNSET" in str(request)


usages = st.builds(
    Usage,
    prompt_tokens=window,
    completion_tokens=window,
    total_tokens=window,
    prompt_tokens_details=st.none() | st.builds(PromptTokensDetails, cached_tokens=window),
    completion_tokens_details=st.none() | st.builds(CompletionTokensDetails, reasoning_tokens=window),
)
objects = st.dictionaries(text, inner, max_size=3)
optional_text = st.none() | text
calls = st.none() | st.lists(objects, max_size=2).map(tuple)
functions = st.builds(FunctionCall, name=text, arguments=text)
tool_calls = st.none() | st.lists(st.builds(ToolCall, id=text, type=text, function=functions), max_size=2).map(tuple)
said = {"content": optional_text, "reasoning_content": optional_text, "tool_calls": calls}
logged = st.none() | objects
choice = st.builds(
    Choice,
    index=st.integers(0, 9),
    message=st.builds(AssistantMessage, **{**said, "tool_calls": tool_calls}),
    finish_reason=optional_text,
    logprobs=logged,
)
chunk_choice = st.builds(
    ChunkChoice,
    index=st.integers(0, 9),
    delta=st.builds(ChoiceDelta, role=optional_text, **said),
    finish_reason=optional_text,
    logprobs=logged,
)
named = {"id": text, "created": window, "model": text, "usage": st.none() | usages, "service_tier": optional_text}


@relaxed
@given(st.builds(ChatCompletion, choices=st.lists(choice, min_size=1, max_size=2).map(tuple), **named))
def test_completions_there_and_back(answer):
    """The same holds for completions, which the gateway writes and the client reads."""
    assert decode_completion(encode(answer)) == answer


@relaxed
@given(st.builds(ChatCompletionChunk, choices=st.lists(chunk_choice, max_size=2).map(tuple), **named))
def test_chunks_there_and_back(chunk):
    """And for chunks."""
    assert decode_chunk(encode(chunk)) == chunk


@relaxed
@given(
    st.builds(
        Context,
        id=name,
        mode=name,
        ttl=st.none() | window,
        model=optional_text,
        truncation_strategy=st.none() | strategy,
        usage=st.none() | usages,
    )
)
def test_contexts_there_and_back(context):
    """And for contexts."""
    assert decode_context(encode(context)) == context


def test_bookkeeping_is_not_sent():
    """Ids of the transport, and the JSON that was read, are no part of the JSON that is written."""
    answer = ChatCompletion(id="c", request_id="r", log_id="l", client_request_id="k", raw_json=b"{}")
    assert json.loads(encode(answer)).keys() == {
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "service_tier",
    }


# --- writing ----------------------------------------------------------------------------------------------------------


def test_extra_fields_win():
    """Extra fields are sent as they are, at their place, and win over ours."""
    sent = json.loads(
        encode(ChatRequest(context_id="c", model="m", messages=[user("x")], extra={"model": "n", "a": None}))
    )
    assert (sent["model"], sent["a"]) == ("n", None)
    sent = json.loads(encode(ContextRequest(model="m", messages=[{"role": "user", "content": "x", "name": "y"}])))
    assert sent["messages"] == [{"role": "user", "content": "x", "name": "y"}]


@pytest.mark.parametrize(
    "value", [object(), float("nan"), float("-inf"), {"a": [float("inf")]}, "\ud800", {None: 1}, len]
)
def test_unencodable(value):
    """What JSON has no form for is an `InvalidInputError`."""
    with pytest.raises(InvalidInputError, match="must be JSON"):
        encode({"x": value})


def test_recursive_values():
    """So is what contains itself, or is nested without end."""
    loop = {}
    loop["x"] = loop
    with pytest.raises(InvalidInputError):
        encode(loop)


# --- reading: requests ------------------------------------------------------------------------------------------------


def test_null_reads_as_left_out():
    """`null` for a field is that field left out, as some SDKs send it; unknown fields are kept."""
    found = decode_request(
        ChatRequest,
        b'{"context_id":"c","model":"m","messages":[{"role":"user","content":"x"}],"n":null,"temperature":null,"x":1}',
    )
    assert found == ChatRequest(context_id="c", model="m", messages=[user("x")], extra={"x": 1})


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b"null", b'"x"', b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_requests_that_are_no_objects(data):
    """A request that is no JSON object is a `ProtocolError`."""
    with pytest.raises(ProtocolError):
        decode_request(ChatRequest, data)


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (ChatRequest, {}, "context_id"),
        (ChatRequest, {"context_id": "c", "model": "m", "messages": [], "n": 0}, "messages"),
        (
            ChatRequest,
            {"context_id": "c", "model": "m", "messages": [{"role": "x", "content": ""}]},
            "messages[0].role",
        ),
        (ContextRequest, {"messages": [{"role": "user", "content": "x"}]}, "model"),
        (ContextRequest, {"model": None, "messages": [{"role": "user", "content": "x"}]}, "model"),
        (ContextRequest, {"model": "m", "messages": [{"role": "user", "content": "x"}], "ttl": "3600"}, "ttl"),
    ],
)
def test_requests_out_of_range(kind, body, field):
    """A request that breaks a rule is an `InvalidInputError` that names the field."""
    with pytest.raises(InvalidInputError) as caught:
        decode_request(kind, json.dumps(body).encode())
    assert caught.value.field == field


# --- reading: answers -------------------------------------------------------------------------------------------------

REFERENCE_CONTEXT = {
    "id": "ctx-20241211104333-12345",
    "ttl": 3600,
    "truncation_strategy": {"type": "rolling_tokens", "rolling_tokens": True},
    "usage": {
        "prompt_tokens": 8,
        "completion_tokens": 0,
        "total_tokens": 8,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "mode": "session",
}


def test_the_documented_context():
    """The answer in the API's documents is read field by field."""
    context = decode_context(json.dumps(REFERENCE_CONTEXT).encode())
    assert (context.id, context.ttl, context.mode) == ("ctx-20241211104333-12345", 3600, "session")
    assert context.truncation_strategy == TruncationStrategy(type="rolling_tokens", rolling_tokens=True)
    assert (context.usage.prompt_tokens, context.usage.cached_tokens) == (8, 0)
    assert context.raw == REFERENCE_CONTEXT


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({"ttl": "3600"}, "ttl", 3600),
        ({"ttl": 3600.0}, "ttl", 3600),
        ({"ttl": None}, "ttl", None),
        ({"model": "m"}, "model", "m"),
        ({"model": None}, "model", None),
        ({"truncation_strategy": None}, "truncation_strategy", None),
        (
            {"truncation_strategy": {"type": "last_history_tokens", "last_history_token": 9}},
            "truncation_strategy",
            TruncationStrategy(type="last_history_tokens", last_history_tokens=9),
        ),
        (
            {"truncation_strategy": {"type": "last_history_tokens", "last_history_tokens": "4096"}},
            "truncation_strategy",
            TruncationStrategy(type="last_history_tokens", last_history_tokens=4096),
        ),
        (
            {"truncation_strategy": {"type": "brand_new", "size": 1}},
            "truncation_strategy",
            TruncationStrategy(type="brand_new"),
        ),
        (
            {"truncation_strategy": {"type": "rolling_tokens", "rolling_tokens": 1, "max_window_tokens": None}},
            "truncation_strategy",
            TruncationStrategy(type="rolling_tokens", rolling_tokens=True),
        ),
        ({"usage": None}, "usage", None),
        ({"usage": {}}, "usage", Usage()),
        ({"usage": {"prompt_tokens": "8", "prompt_tokens_details": None, "new": 1}}, "usage", Usage(prompt_tokens=8)),
        ({"mode": "brand_new"}, "mode", "brand_new"),
        ({"new": {"a": [1]}}, "mode", "session"),
        ({"request_id": 7, "raw_json": "x", "log_id": []}, "request_id", None),
        ({"id": 12345}, "id", "12345"),
    ],
    ids=str,
)
def test_tolerant_contexts(fields, attribute, value):
    """A context is read for what it says, in whatever form services have been seen to say it; the rest is in `raw`."""
    body = {**REFERENCE_CONTEXT, **fields}
    context = decode_context(json.dumps(body).encode(), {"request_id": None})
    assert getattr(context, attribute) == value
    assert context.raw == body


@pytest.mark.parametrize("body", [{}, {"id": ""}, {"id": None}, {"id": {}}, [], None, "x", 7])
def test_no_context(body):
    """What has no id, or is no object, is no context."""
    with pytest.raises(ProtocolError, match=r"not Context|not a context"):
        decode_context(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("fields", "attribute", "value"),
    [
        ({}, "finish_reason", "stop"),
        ({"created": "7"}, "created", 7),
        ({"created": 7.9}, "created", 7),
        ({"created": None, "model": None, "id": None}, "model", ""),
        ({"usage": {"prompt_tokens": 7.0}}, "usage", Usage(prompt_tokens=7)),
        (
            {"usage": {"prompt_tokens_details": {"cached_tokens": "5"}}},
            "usage",
            Usage(prompt_tokens_details=PromptTokensDetails(cached_tokens=5)),
        ),
        ({"choices": [{"message": {"content": None}}]}, "text", ""),
        ({"choices": [{"message": {}}]}, "finish_reason", None),
        ({"choices": [{"message": {"content": "Hi"}, "index": None, "finish_reason": None}]}, "text", "Hi"),
        ({"choices": [{"message": {"content": "Hi", "role": None}, "index": "0"}]}, "text", "Hi"),
        ({"choices": [{"message": {"content": 7}}]}, "text", "7"),
        ({"choices": [{"message": {"content": "Hi", "tool_calls": None}, "logprobs": None}]}, "text", "Hi"),
        ({"choices": [{"message": {"content": "Hi"}, "finish_reason": "brand_new"}]}, "finish_reason", "brand_new"),
        ({"object": "x", "new": 1}, "object", "x"),
    ],
    ids=str,
)
def test_tolerant_completions(fields, attribute, value):
    """So is a completion."""
    body = {"id": "c", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], **fields}
    completion = decode_completion(json.dumps(body).encode(), {"request_id": "r"})
    assert getattr(completion, attribute) == value
    assert completion.raw == body
    assert completion.request_id == "r"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"choices": []},
        {"choices": None},
        {"choices": 7},
        {"choices": ["x"]},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        {"choices": [{"message": "Hi"}]},
        {"choices": [{"message": [{"content": "Hi"}]}]},
        {"choices": [{"message": {"content": "x"}}, {"message": {"content": "x"}, "index": []}]},
        {"choices": [{"message": {"content": "x"}, "index": "first"}]},
        [],
        7,
        None,
        "x",
    ],
    ids=str,
)
def test_no_completion(body):
    """What has no choice that can be read is no completion: the error shows the beginning of it, and says where."""
    with pytest.raises(ProtocolError) as caught:
        decode_completion(json.dumps(body).encode())
    assert caught.value.body == json.dumps(body)
    assert "not" in caught.value.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, ""),
        ({"choices": []}, ""),
        ({"choices": None, "usage": None}, ""),
        ({"choices": [{}]}, ""),
        ({"choices": [{"delta": None}]}, ""),
        ({"choices": [{"delta": {"content": None, "role": "assistant"}}]}, ""),
        ({"choices": [{"delta": {"content": "Hi"}, "index": "0"}]}, "Hi"),
        ({"choices": [{"delta": {"content": "Hi"}, "index": None, "finish_reason": None}]}, "Hi"),
        ({"choices": [{"delta": {"content": 5}}]}, "5"),
        ({"choices": [{"delta": {"content": "Hi"}, "index": 0.0}], "created": "now" and 1.5}, "Hi"),
        ({"choices": [{"index": 1, "delta": {"content": "no"}}, {"delta": {"content": "Hi"}}]}, "Hi"),
    ],
    ids=str,
)
def test_tolerant_chunks(body, text):
    """So is a chunk, on both of its paths."""
    data = json.dumps(body).encode()
    chunk = decode_chunk(data)
    assert chunk.text == text
    assert chunk.raw == body
    assert chunk.raw_json == data


@pytest.mark.parametrize("decode", [decode_json, decode_context, decode_completion, decode_chunk])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"hello",
        b"{}x",
        b'{"a":1,}',
        b"{'a':1}",
        b"\xff\xfe",
        b'{"id":"\xff}',
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\xef\xbb\xbf{}",
        b"{\xef\xbb\xbf}",
        b'{"id":"\\ud8"}',
        b"[" * 100_000,
        b'{"choices":' * 50_000,
        b'{"choices":[{"delta":' + b'{"a":' * 50_000,
    ],
    ids=lambda data: repr(data[:20]) if isinstance(data, bytes) else None,
)
def test_not_json(decode, data):
    """What is not JSON is a `ProtocolError` with the beginning of it, however deeply nested."""
    with pytest.raises(ProtocolError) as caught:
        decode(data)
    assert caught.value.body == data[:2000].decode("utf-8", "replace")
    assert caught.value.__cause__ is None


@relaxed
@given(st.binary(max_size=100) | inner.map(lambda value: json.dumps(value).encode()))
def test_anything(data):
    """Any bytes give an answer or a `ProtocolError`, and the answer's `raw` likewise."""
    for decode in (decode_json, decode_context, decode_completion, decode_chunk):
        try:
            found = decode(data)
            if decode is not decode_json:
                assert isinstance(found.raw, dict)
        except ProtocolError:
            pass


# Shapes near the right ones, with values that are not.
near = st.recursive(
    st.none() | st.booleans() | st.integers() | number | text | st.sampled_from(["1", "1e9", "nan", "-"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["id", "choices", "delta", "message", "content", "index", "usage", "prompt_tokens", "ttl"])
            | st.sampled_from(
                ["tool_calls", "logprobs", "truncation_strategy", "type", "finish_reason", "mode", "role"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=500)
@given(near)
def test_nearly_right(value):
    """Answers of nearly the right shape give an answer or a `ProtocolError`, and the answer has the types it says."""
    data = json.dumps(value).encode()
    for decode in (decode_context, decode_completion, decode_chunk):
        try:
            found = decode(data)
        except ProtocolError:
            continue
        assert found.raw == value
        if not isinstance(found, Context):
            assert isinstance(found.text, str)
            assert all(isinstance(choice.index, int) for choice in found.choices)
            assert all(
                choice.finish_reason is None or isinstance(choice.finish_reason, str) for choice in found.choices
            )
