"""The fold: many chunks, one completion."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ctxcache.codec import decode_chunk
from ctxcache.fold import Fold
from ctxcache.models import ChatCompletionChunk, ChoiceDelta, ChunkChoice, FunctionCall, ToolCall, Usage


def folded(*chunks, expected=1):
    """Fold chunks given as JSON."""
    fold = Fold(expected)
    for chunk in chunks:
        fold.add([decode_chunk(json.dumps(chunk).encode())])
    return fold


def delta(index=0, finish=None, logprobs=None, **fields):
    """A chunk of one choice."""
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish, "logprobs": logprobs}]}


def test_nothing():
    """Without a chunk there is an empty completion, which is not finished."""
    fold = Fold()
    assert not fold.finished
    completion = fold.completion()
    assert (completion.choices, completion.text, completion.finish_reason, completion.usage) == ((), "", None, None)


def test_first_chunk_names_it():
    """The first id, model and time that are not empty count; of service tier and usage the last."""
    chunks = [
        {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": []},
        {"id": "a", "model": "m", "created": 7, "usage": {"total_tokens": 1}, "service_tier": "x"},
        {"id": "b", "model": "n", "created": 8, "usage": {"total_tokens": 2}},
        {"usage": None, "service_tier": "y"},
    ]
    completion = folded(*chunks).completion(request_id="r")
    assert (completion.id, completion.model, completion.created, completion.request_id) == ("a", "m", 7, "r")
    assert (completion.usage.total_tokens, completion.service_tier, completion.object) == (2, "y", "chat.completion")
    assert completion.raw == completion.to_dict()
    assert (completion.raw["id"], completion.raw["usage"]["total_tokens"], "request_id" in completion.raw) == (
        "a",
        2,
        False,
    )


def test_missing_is_not_empty():
    """A choice that never had text has None; one that had empty text has empty text."""
    assert folded(delta(finish="stop")).completion().choices[0].message.content is None
    assert folded(delta(content="")).completion().choices[0].message.content == ""
    assert folded(delta(reasoning_content="")).completion().choices[0].message.reasoning_content == ""
    message = folded(delta(role="tool", content=None), delta(role="")).completion().choices[0].message
    assert (message.role, message.content, message.reasoning_content, message.tool_calls) == ("tool", None, None, None)


def test_answered():
    """A reply has text, reasoning, a tool call or a finish reason; a role alone, or empty text, is no answer."""
    assert not Fold().answered
    assert not folded(delta(role="assistant"), delta(content=""), {"choices": []}).answered
    for said in ({"content": "a"}, {"reasoning_content": "a"}, {"tool_calls": [{}]}, {"finish": "stop"}):
        assert folded(delta(role="assistant", content=""), delta(**said)).answered


def test_finished():
    """It is finished when as many choices as were asked for have come, each with a finish reason."""
    assert not folded(delta(content="a")).finished
    assert not folded(delta(content="a", finish="")).finished
    assert folded(delta(finish="stop")).finished
    assert folded(delta(finish="brand_new")).finished
    assert not folded(delta(finish="stop"), expected=2).finished
    assert not folded(delta(finish="stop"), delta(1, content="a"), expected=2).finished
    assert not folded(delta(finish="stop"), delta(1, content="a")).finished  # more came than were asked for
    assert folded(delta(finish="stop"), delta(1, finish="length"), expected=2).finished
    assert folded(delta(finish="stop"), delta(content="late"), {"choices": []}).finished


def test_tool_calls():
    """Fragments join by index: names and arguments are joined, the first id counts, None says nothing."""
    chunks = [
        delta(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}]),
        delta(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": None}}]),
        delta(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": {"name": None, "arguments": "}"}}]),
        delta(tool_calls=[{"index": 0, "id": None, "function": {"arguments": "[]"}}, {"id": "no index"}]),
    ]
    assert folded(*chunks).completion().tool_calls == (
        ToolCall(id="a", function=FunctionCall(name="f", arguments="[]")),
        ToolCall(id="b", function=FunctionCall(name="g", arguments="{}")),
    )


def test_odd_tool_calls():
    """Whatever fragments say, they fold to calls of texts; arguments that are an object are written as JSON."""
    chunks = [delta(tool_calls=[{"index": "x", "a": [1], "b": 1, "c": {"d": 1}, "e": "s"}, {"index": 0}])]
    chunks += [delta(tool_calls=[{"index": "x", "a": [2], "b": 2, "c": "d", "e": None}, {"index": None, "f": 1}])]
    calls = folded(*chunks).completion().choices[0].message.tool_calls
    assert calls == (ToolCall(),)
    chunks = [delta(tool_calls=[{"id": 5, "type": None, "function": {"name": ["f"], "arguments": {"a": 1}}}])]
    assert folded(*chunks).completion().tool_calls == (ToolCall(function=FunctionCall(arguments='{"a": 1}')),)


def test_logprobs():
    """Log probabilities are joined, one after the other."""
    chunks = [
        delta(logprobs={"content": [1], "refusal": None}),
        delta(logprobs={"content": [2, 3]}),
        delta(logprobs={}),
    ]
    assert folded(*chunks).completion().choices[0].logprobs == {"content": [1, 2, 3], "refusal": None}
    assert folded(delta(content="x")).completion().choices[0].logprobs is None


def test_folding_changes_nothing():
    """A completion may be asked for at any time, and twice; chunks are left as they came."""
    chunk = decode_chunk(json.dumps(delta(tool_calls=[{"index": 0, "function": {"arguments": "a"}}])).encode())
    fold = Fold()
    fold.add([chunk])
    first = fold.completion()
    fold.add([chunk])
    assert first.tool_calls[0].function.arguments == "a"
    assert fold.completion().tool_calls[0].function.arguments == "aa"
    assert fold.completion() == fold.completion()
    assert chunk.choices[0].delta.tool_calls[0] == {"index": 0, "function": {"arguments": "a"}}


pieces = st.tuples(st.integers(0, 3), st.none() | st.text(max_size=5), st.none() | st.sampled_from(["stop", "length"]))


@given(st.lists(st.lists(pieces, max_size=3), max_size=20))
def test_any_interleaving(chunks):
    """However choices are interleaved and bundled, each has its own pieces in order, and its last finish reason."""
    fold = Fold()
    for bundle in chunks:
        choices = tuple(ChunkChoice(index=i, delta=ChoiceDelta(content=t), finish_reason=f) for i, t, f in bundle)
        fold.add([ChatCompletionChunk(choices=choices)])
    flat = [piece for bundle in chunks for piece in bundle]
    completion = fold.completion()
    assert [choice.index for choice in completion.choices] == sorted({index for index, _, _ in flat})
    for choice in completion.choices:
        texts = [text for index, text, _ in flat if index == choice.index and text is not None]
        reasons = [reason for index, _, reason in flat if index == choice.index and reason]
        assert choice.message.content == ("".join(texts) if texts else None)
        assert choice.finish_reason == (reasons[-1] if reasons else None)
    assert fold.usage is None


def test_usage_by_hand():
    """Usage objects are kept as they are."""
    fold, usage = Fold(), Usage(total_tokens=3)
    fold.add([ChatCompletionChunk(usage=usage)])
    assert fold.usage is usage is fold.completion().usage
