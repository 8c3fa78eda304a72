"""Answers and chunks as LangChain's messages. Pure.

LangChain adds chunks up field by field, texts joined. So each piece is in one chunk only: the text and the fragments of
tool calls as they come; the usage, the finish reason and the ids in a last chunk, made when the stream has come to its
end. A stream that broke off has no such chunk.
"""

from collections.abc import Iterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, InvalidToolCall, ToolCallChunk, UsageMetadata
from langchain_core.messages import ToolCall as LangChainToolCall
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from ...errors import ProtocolError, StreamInterruptedError
from ...models import ChatCompletion, ChatCompletionChunk, Choice, ToolCall, Usage
from ...tool_calls import ToolCallReader

__all__ = ["StreamedAnswer", "to_result"]


def to_result(completion: ChatCompletion) -> ChatResult:
    """Return a whole answer, one generation for each reply."""
    metadata = _metadata(completion)
    usage = None if completion.usage is None else _usage(completion.usage)
    generations: list[ChatGeneration] = []
    for choice in completion.choices:
        # The usage is that of all replies together: told once.
        message = _message(choice, metadata, usage if not generations else None)
        message.id = completion.id or None
        generations.append(ChatGeneration(message=message, generation_info=_generation_info(choice)))
    return ChatResult(generations=generations)


class StreamedAnswer:
    """Turns the chunks of one stream, with a single reply, into LangChain's."""

    def __init__(self) -> None:
        self._calls = ToolCallReader()

    def read(self, item: list[ChatCompletionChunk] | ChatCompletion) -> Iterator[ChatGenerationChunk]:
        """Yield what the next chunks add, or the end of the stream: the whole answer, as folded from the chunks.

        Raises:
            StreamInterruptedError: the answer was cut within a tool call, which LangChain would take for a whole one.
        """
        if isinstance(item, ChatCompletion):
            yield self._last(item)
            return
        for chunk in item:
            if (added := self._addition(chunk)) is not None:
                yield added

    def _addition(self, chunk: ChatCompletionChunk) -> ChatGenerationChunk | None:
        for choice in chunk.choices:
            if choice.index != 0:
                continue
            delta = choice.delta
            calls = self._fragments(delta.tool_calls or ())
            extra = {"reasoning_content": delta.reasoning_content} if delta.reasoning_content else {}
            if not (delta.content or calls or extra or choice.logprobs):
                continue
            text = delta.content or ""
            message = AIMessageChunk(content=text, tool_call_chunks=calls, additional_kwargs=extra, id=chunk.id or None)
            info = {"logprobs": choice.logprobs} if choice.logprobs else None
            return ChatGenerationChunk(message=message, generation_info=info)
        return None

    def _last(self, completion: ChatCompletion) -> ChatGenerationChunk:
        if completion.finish_reason == "length" and any(_parsed(call) is None for call in completion.tool_calls):
            raise StreamInterruptedError(
                "the answer was cut within the arguments of a tool call (finish_reason 'length'): raise max_tokens",
                partial=completion,
                request_id=completion.request_id,
            )
        metadata = _metadata(completion)
        if completion.finish_reason:
            metadata["finish_reason"] = completion.finish_reason
        message = AIMessageChunk(
            content="",
            response_metadata=metadata,
            usage_metadata=None if completion.usage is None else _usage(completion.usage),
            id=completion.id or None,
            chunk_position="last",
        )
        return ChatGenerationChunk(message=message)

    def _fragments(self, fragments: tuple[dict[str, Any], ...]) -> list[ToolCallChunk]:
        return [
            ToolCallChunk(
                name=added.name or None,
                args=added.arguments,
                id=added.id or None,
                index=added.index,
                type="tool_call_chunk",
            )
            for added in self._calls.read(fragments)
        ]


def _message(choice: Choice, metadata: dict[str, Any], usage: UsageMetadata | None) -> AIMessage:
    valid: list[LangChainToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in choice.message.tool_calls or ():
        name, text, args = call.function.name, call.function.arguments, _parsed(call)
        if args is not None:
            valid.append(LangChainToolCall(name=name, args=args, id=call.id, type="tool_call"))
        else:
            error = "the arguments must be a JSON object"
            invalid.append(InvalidToolCall(name=name, args=text, id=call.id, error=error, type="invalid_tool_call"))
    reasoning = choice.message.reasoning_content
    return AIMessage(
        content=choice.message.content or "",
        additional_kwargs={"reasoning_content": reasoning} if reasoning else {},
        response_metadata={**metadata, "finish_reason": choice.finish_reason},
        tool_calls=valid,
        invalid_tool_calls=invalid,
        usage_metadata=usage,
    )


def _parsed(call: ToolCall) -> dict[str, Any] | None:
    """Return the arguments of a call; None unless they are a JSON object."""
    try:
        arguments = call.json()
    except ProtocolError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _generation_info(choice: Choice) -> dict[str, Any] | None:
    return {"logprobs": choice.logprobs} if choice.logprobs else None


def _metadata(completion: ChatCompletion) -> dict[str, Any]:
    fields = {
        "model_provider": "ctxcache",
        "model_name": completion.model,
        "request_id": completion.request_id,
        "service_tier": completion.service_tier,
    }
    return {name: value for name, value in fields.items() if value}


def _usage(usage: Usage) -> UsageMetadata:
    counted = UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens or usage.prompt_tokens + usage.completion_tokens,
    )
    if usage.prompt_tokens_details is not None:
        counted["input_token_details"] = InputTokenDetails(cache_read=usage.cached_tokens)
    if usage.completion_tokens_details is not None:
        counted["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return counted
