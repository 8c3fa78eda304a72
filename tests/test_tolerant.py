"""The second try at an answer: what is broken costs itself, not the answer."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcache import tolerant
from ctxcache.codec import decode_chunk, decode_completion, decode_context, decode_json
from ctxcache.models import ChatCompletion, ToolCall, TruncationStrategy, Usage

# --- characters -------------------------------------------------------------------------------------------------------

BROKEN = [
    (b'"he\\ud83d"', "he\ufffd"),
    (b'"\\ude00y"', "\ufffdy"),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b'"\\ud83d\\ud83d\\ude00"', "\ufffd\U0001f600"),
    (b'"\\udc00\\ud800"', "\ufffd\ufffd"),
    (b'"\\\\ud83d"', "\\ud83d"),
    (b'"he\xf0\x9f"', "he\ufffd"),
    (b'"\x98\x80y"', "\ufffd\ufffdy"),
    (b'"a\xffb"', "a\ufffdb"),
    (b'"\xed\xa0\x80"', "\ufffd\ufffd\ufffd"),
    ('"caf\u00e9"'.encode("latin-1"), "caf\ufffd"),
]


@pytest.mark.parametrize(("text", "read"), BROKEN, ids=[repr(text) for text, _ in BROKEN])
def test_a_broken_character(text, read):
    """A lone surrogate, or bytes that are no UTF-8, become U+FFFD, in plain answers, chunks, contexts and any JSON."""
    completion = b'{"id":"c","choices":[{"message":{"content":%b},"finish_reason":"stop"}]}' % text
    found = decode_completion(completion, {"request_id": "r"})
    assert (found.text, found.finish_reason, found.request_id, found.id) == (read, "stop", "r", "c")
    assert found.raw_json == completion
    chunk = decode_chunk(b'{"choices":[{"index":1,"delta":{}},{"delta":{"content":%b}}],"model":"m"}' % text)
    assert (chunk.text, chunk.model, chunk.choices[0].index) == (read, "m", 1)
    assert decode_context(b'{"id":%b}' % text).id == read
    assert decode_json(b"[{%b:[%b]}]" % (text, text)) == [{read: [read]}]


@pytest.mark.parametrize("decode", [decode_completion, decode_chunk])
def test_a_byte_order_mark(decode):
    """A BOM before the JSON is passed over, also by `raw`."""
    data = b'\xef\xbb\xbf{"choices":[{"message":{"content":"Hi"},"delta":{"content":"Hi"}}]}'
    answer = decode(data)
    assert answer.text == "Hi"
    assert answer.raw["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_numbers_that_json_does_not_have(number):
    """NaN and infinities are read as missing."""
    data = b'{"created":%b,"choices":[{"message":{"content":"Hi"},"logprobs":{"content":[%b]}}]}' % (number, number)
    answer = decode_completion(data)
    assert (answer.text, answer.created, answer.choices[0].logprobs) == ("Hi", 0, {"content": [None]})


@pytest.mark.parametrize("number", [b"1e999", b"-1E+400", b"1" * 5000])
def test_numbers_beyond_a_float(number):
    """Within an object that is kept as data, they become None: the answer can be written as JSON."""
    logprobs = b'{"content":[{"token":"Hi","logprob":%b,"top_logprobs":[0.5,%b]}]}' % (number, number)
    call = b'{"index":0,"id":"a","function":{"name":"f"},"x":%b}' % number
    data = b'{"choices":[{"message":{"content":"Hi"},"delta":{"tool_calls":[%b]},"logprobs":%b}]}' % (call, logprobs)
    read = {"content": [{"token": "Hi", "logprob": None, "top_logprobs": [0.5, None]}]}
    chunk = decode_chunk(data)
    assert (chunk.choices[0].logprobs, chunk.choices[0].delta.tool_calls[0]["x"]) == (read, None)
    answer = decode_completion(data)
    assert answer.choices[0].logprobs == read
    assert json.loads(answer.choices[0].to_json())["logprobs"] == read


@pytest.mark.parametrize("data", [b"", b"\xff", b'{"a":"\xff', b'{"a":\xff}', b"[" * 100_000, b'{"a":"\x01\xff"}'])
def test_what_is_no_json_stays_refused(data):
    """Only characters within texts are mended: JSON that is cut or wrong elsewhere is an error."""
    with pytest.raises((ValueError, RecursionError)):
        tolerant.read_json(data)


@given(st.text(st.characters(codec=None)))
def test_any_text(text):
    """Text with any surrogates is read without one, and text without is read as it is."""
    read = tolerant.read_json(json.dumps(text).encode())
    read.encode()
    if text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore") == text:
        assert read == text


# --- odd fields -------------------------------------------------------------------------------------------------------


def completion(choice=(), message=(), **fields):
    """A completion with a text, and these fields at their places."""
    told = {"index": 0, "message": {"content": "hey", **dict(message)}, "finish_reason": "stop", **dict(choice)}
    return {"id": "c", "choices": [told], **fields}


@pytest.mark.parametrize("odd", [-0.0000017, "x", [1], {"a": {}}, True, math.nan], ids=repr)
@pytest.mark.parametrize("place", ["choice", "message", "top"])
@pytest.mark.parametrize(
    "name",
    [
        *("logprobs", "finish_reason", "role", "reasoning_content", "tool_calls"),
        *("created", "usage", "service_tier", "model", "object", "id"),
    ],
)
def test_an_odd_optional_field(name, place, odd):
    """Whatever an optional field holds, the answer stands, and `raw` has the field as it came."""
    body = completion(**({name: odd} if place == "top" else {place: {name: odd}}))
    data = json.dumps(body).encode()
    answer = decode_completion(data)
    assert answer.text == "hey"
    assert repr(answer.raw) == repr(body)
    chunk = decode_chunk(data.replace(b'"message"', b'"delta"'))
    assert chunk.text == "hey"


def test_what_can_be_read_of_an_odd_field_is():
    """Numbers as text, text as numbers, and calls beside what is none, are read."""
    answer = decode_completion(
        json.dumps(
            completion(
                created="7", model=5, usage={"prompt_tokens": "3"}, message={"tool_calls": [{"id": "a"}, "odd", None]}
            )
        ).encode()
    )
    assert (answer.created, answer.model, answer.usage) == (7, "5", Usage(prompt_tokens=3))
    assert answer.choices[0].message.tool_calls == (ToolCall(id="a"),)


@pytest.mark.parametrize("count", ["many", [], {}, True, "1e999"])
def test_a_usage_counts_right_or_not_at_all(count):
    """A usage one of whose counts cannot be read is none: half of it would be a wrong bill."""
    body = completion(usage={"prompt_tokens": count, "completion_tokens": 4})
    assert decode_completion(json.dumps(body).encode()).usage is None
    body = completion(usage={"prompt_tokens": 4, "prompt_tokens_details": {"cached_tokens": count}})
    assert decode_completion(json.dumps(body).encode()).usage == Usage(prompt_tokens=4)


def test_a_context_with_odd_fields():
    """So does a context stand; what its strategy says oddly is left out."""
    strategy = {"type": "rolling_tokens", "max_window_tokens": "wide", "rolling_tokens": 1}
    context = decode_context(json.dumps({"id": "c", "ttl": "soon", "truncation_strategy": strategy}).encode())
    assert (context.id, context.ttl) == ("c", None)
    assert context.truncation_strategy == TruncationStrategy(type="rolling_tokens", rolling_tokens=True)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            [
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "new"},
                {"type": "text", "text": "hey"},
            ],
            "hey",
        ),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "output_text", "text": "a", "annotations": []}], "a"),
        ([{"type": "text", "text": {"value": "a"}}], "a"),
        ([{"text": "a"}, "b", 7, None, {"type": "image_url", "text": "no"}], "ab"),
        ({"type": "text", "text": "a"}, "a"),
        ([], None),
        ([{"type": "image_url"}], None),
    ],
    ids=["thinking", "texts", "output_text", "value", "mixed", "one part", "none", "no text"],
)
def test_content_in_parts(content, text):
    """Of content in parts, the text parts are the text, in answers and in deltas."""
    data = json.dumps(completion(message={"content": content})).encode()
    assert decode_completion(data).choices[0].message.content == text
    assert decode_chunk(data.replace(b'"message"', b'"delta"')).choices[0].delta.content == text


@pytest.mark.parametrize("choices", [7, {"0": {}}, ["x"], [[]], [{"message": 7}], [{"message": {}, "index": "first"}]])
def test_choices_stay_strict(choices):
    """What is not a list of choices with messages is no answer, and the error says where."""
    with pytest.raises(ValueError, match=r"choices"):
        tolerant.structure({"choices": choices}, ChatCompletion)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["logprobs", "created", "usage", "service_tier", "model", "object"]), json_values)
)
def test_any_optional_fields(fields):
    """Whatever stands in the optional fields, the text is read."""
    assert decode_completion(json.dumps(completion(**fields)).encode()).text == "hey"
