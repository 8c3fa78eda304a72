"""LangChain's messages as messages of a request. Pure."""

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages

from ...errors import CtxCacheError, InvalidInputError
from ...models import Message

__all__ = ["to_messages"]


def to_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """Return messages of LangChain as `Message` objects, in their order.

    Of an answer the text and the tool calls are sent, calls with invalid arguments included: their results follow.

    Raises:
        InvalidInputError: names the message that has no form the service takes.
    """
    return tuple(_to_message(place, message) for place, message in enumerate(messages))


def _to_message(place: int, message: BaseMessage) -> Message:
    try:
        fields = _fields(message)
        return Message(fields.pop("role"), fields.pop("content"), fields)
    except InvalidInputError as error:
        wrong: CtxCacheError = error.within(f"messages[{place}]")
    except (ValueError, TypeError, KeyError) as error:  # LangChain's, of blocks that have no such form
        wrong = InvalidInputError.of(f"messages[{place}]", str(error), "a message in a form of OpenAI's chat API")
    raise wrong


def _fields(message: BaseMessage) -> dict[str, Any]:
    if not isinstance(message, AIMessage):
        converted: Any = convert_to_openai_messages(message, text_format=_text_format(message))
        fields = dict(converted)
        fields["content"] = _content(fields["content"])
        return fields
    calls: Any = convert_to_openai_messages(message.model_copy(update={"content": ""}))
    fields = {**calls, "content": str(message.text)}
    for call in message.invalid_tool_calls:
        function = {"name": call["name"] or "", "arguments": call["args"] or ""}
        fields.setdefault("tool_calls", []).append({"type": "function", "id": call["id"], "function": function})
    if not fields["content"] and fields.get("tool_calls"):
        fields["content"] = None
    return fields


def _text_format(message: BaseMessage) -> Any:
    return "string" if isinstance(message.content, str) else "block"  # of a list, texts would be joined by line ends


def _content(content: Any) -> Any:
    """Return a list of one text as that text, which more services take."""
    if isinstance(content, list):
        if not content:
            return ""
        if len(content) == 1 and content[0].get("type") == "text":
            return content[0]["text"]
    return content
