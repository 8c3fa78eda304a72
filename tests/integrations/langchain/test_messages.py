"""LangChain's messages as messages of a request."""

from typing import Any

import pytest

from ctxcache import InvalidInputError

pytest.importorskip("langchain_core")

from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage

from ctxcache.integrations.langchain.messages import to_messages


def sent(*messages: Any) -> list[tuple[str, Any, dict[str, Any]]]:
    """Role, content and further fields of each message."""
    return [(message.role, message.content, dict(message.extra)) for message in to_messages(messages)]


def test_roles_and_names() -> None:
    """Each kind has its role; a name goes along."""
    assert sent(SystemMessage("s"), HumanMessage("h", name="Ann"), AIMessage("a"), ChatMessage("c", role="judge")) == [
        ("system", "s", {}),
        ("user", "h", {"name": "Ann"}),
        ("assistant", "a", {}),
        ("judge", "c", {}),
    ]


def test_contents() -> None:
    """Texts are not changed; one text is sent as text, several parts as they are, images in OpenAI's form."""
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert [content for _, content, _ in sent(HumanMessage(text[:1]), HumanMessage(text), HumanMessage([]))] == [
        "a",
        tuple(text),
        "",
    ]
    assert sent(HumanMessage([*text, image]))[0][1] == (*text, url)


def test_answers() -> None:
    """Of an answer the text and the calls are sent: no reasoning, no metadata; invalid calls as written."""
    blocks: list[Any] = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "a"}, "b"]
    call = {"name": "f", "args": {"x": "ü"}, "id": "c", "type": "tool_call"}
    invalid = {"name": "g", "args": "{x", "id": "d", "error": "no", "type": "invalid_tool_call"}
    messages: Any = [
        AIMessage(blocks, additional_kwargs={"reasoning_content": "hm"}),
        AIMessage("", tool_calls=[call], invalid_tool_calls=[invalid]),
        AIMessage("so", tool_calls=[call]),
        ToolMessage("3", tool_call_id="c", name="f", status="error"),
    ]
    first = {"type": "function", "id": "c", "function": {"name": "f", "arguments": '{"x": "ü"}'}}
    second = {"type": "function", "id": "d", "function": {"name": "g", "arguments": "{x"}}
    assert sent(*messages) == [
        ("assistant", "ab", {}),
        ("assistant", None, {"tool_calls": [first, second]}),
        ("assistant", "so", {"tool_calls": [first]}),
        ("tool", "3", {"tool_call_id": "c", "name": "f"}),
    ]


def test_messages_without_a_form() -> None:
    """What the service has no form for is named, with its place."""
    with pytest.raises(InvalidInputError, match=r"messages\[1\] must be a message in a form of OpenAI's chat API"):
        to_messages([HumanMessage("x"), HumanMessage([{"type": "image_url"}])])
    with pytest.raises(InvalidInputError, match=r"messages\[0\].role"):
        to_messages([ChatMessage("x", role="")])
