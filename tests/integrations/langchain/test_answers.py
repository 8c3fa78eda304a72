"""Answers and chunks as LangChain's messages: each piece once, half a call never whole."""

from typing import Any

import pytest

from ctxcache import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    CompletionTokensDetails,
    FunctionCall,
    PromptTokensDetails,
    StreamInterruptedError,
    ToolCall,
    Usage,
)

pytest.importorskip("langchain_core")

from ctxcache.integrations.langchain.answers import StreamedAnswer, to_result


def call(arguments: str) -> ToolCall:
    """A call of `f`."""
    return ToolCall(id="c", function=FunctionCall(name="f", arguments=arguments))


def completion(*calls: ToolCall, finish_reason: str = "tool_calls", **fields: Any) -> ChatCompletion:
    """An answer that asks for calls."""
    message = AssistantMessage(tool_calls=calls)
    return ChatCompletion(choices=(Choice(message=message, finish_reason=finish_reason),), **fields)


def chunk(index: int = 0, **fields: Any) -> ChatCompletionChunk:
    """A chunk with one choice."""
    logprobs = fields.pop("logprobs", None)
    return ChatCompletionChunk(
        id="x", choices=(ChunkChoice(index=index, delta=ChoiceDelta(**fields), logprobs=logprobs),)
    )


def test_calls_with_and_without_valid_arguments() -> None:
    """Arguments that are no JSON object make an invalid call, which keeps the text."""
    message: Any = to_result(completion(call('{"x": 1}'), call(""), call("{x"), call("[1]"))).generations[0].message
    assert [each["args"] for each in message.tool_calls] == [{"x": 1}, {}]
    assert [each["args"] for each in message.invalid_tool_calls] == ["{x", "[1]"]


def test_usage() -> None:
    """Details are told where the service tells them, and a missing sum is made."""
    details = {
        "prompt_tokens_details": PromptTokensDetails(cached_tokens=5),
        "completion_tokens_details": CompletionTokensDetails(reasoning_tokens=2),
    }
    full = Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10, **details)  # type: ignore[arg-type]
    told: Any = to_result(completion(usage=full)).generations[0].message
    assert told.usage_metadata == {
        "input_tokens": 7,
        "output_tokens": 3,
        "total_tokens": 10,
        "input_token_details": {"cache_read": 5},
        "output_token_details": {"reasoning": 2},
    }
    bare: Any = to_result(completion(usage=Usage(prompt_tokens=7, completion_tokens=3))).generations[0].message
    assert bare.usage_metadata == {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


def test_the_usage_of_several_replies_is_told_once() -> None:
    """The service counts all replies together, and so do the generations."""
    choices = tuple(Choice(index=n, message=AssistantMessage(content=str(n))) for n in range(2))
    answer = ChatCompletion(choices=choices, usage=Usage(prompt_tokens=7, completion_tokens=3))
    messages: Any = [generation.message for generation in to_result(answer).generations]
    assert [message.usage_metadata is None for message in messages] == [False, True]


def test_chunks() -> None:
    """Each chunk with something in it is one of LangChain's; empty ones and those of other replies are none."""
    streamed = StreamedAnswer()
    fragment = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}
    chunks = [
        chunk(role="assistant"),
        chunk(content="a"),
        chunk(1, content="other"),
        chunk(tool_calls=(fragment,)),
        chunk(tool_calls=({"index": 0, "function": {"arguments": "}"}},)),
        chunk(reasoning_content="hm"),
        chunk(content="b", logprobs={"content": []}),
        ChatCompletionChunk(usage=Usage(prompt_tokens=1)),
    ]
    read = list(streamed.read(chunks))
    messages: Any = [each.message for each in read]
    assert [message.content for message in messages] == ["a", "", "", "", "b"]
    fragments = [part for message in messages for part in message.tool_call_chunks]
    assert [(part["name"], part["args"], part["id"], part["index"]) for part in fragments] == [
        ("f", "{", "c", 0),
        (None, "}", None, 0),
    ]
    assert messages[3].additional_kwargs == {"reasoning_content": "hm"}
    assert read[4].generation_info == {"logprobs": {"content": []}}
    whole: Any = to_result(
        ChatCompletion(choices=(Choice(message=AssistantMessage(content="b"), logprobs={"content": []}),))
    )
    assert whole.generations[0].generation_info == {"logprobs": {"content": []}}


def test_a_call_that_was_cut() -> None:
    """An answer cut within the arguments raises, since LangChain would complete the JSON and make a call of it."""
    with pytest.raises(StreamInterruptedError, match="cut within the arguments of a tool call") as cut:
        list(StreamedAnswer().read(completion(call('{"city": "Par'), finish_reason="length")))
    assert cut.value.partial.tool_calls
    for whole in (completion(call('{"x": 1}'), finish_reason="length"), completion(call("{x"))):
        assert len(list(StreamedAnswer().read(whole))) == 1


def test_the_last_chunk() -> None:
    """The end has the reason, the usage and the ids; a stream without a reason has none."""
    (end,) = StreamedAnswer().read(completion(id="x", model="m", request_id="r", service_tier="default"))
    message: Any = end.message
    assert message.chunk_position == "last"
    assert message.response_metadata == {
        "model_provider": "ctxcache",
        "model_name": "m",
        "request_id": "r",
        "service_tier": "default",
        "finish_reason": "tool_calls",
    }
    (end,) = StreamedAnswer().read(ChatCompletion())
    assert "finish_reason" not in end.message.response_metadata
