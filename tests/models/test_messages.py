"""Messages, in every form in which callers have them."""

import dataclasses
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from ctxcache import InvalidInputError, Message, assistant, system, tool, user
from ctxcache.codec import encode_messages
from ctxcache.models import AssistantMessage, FunctionCall, ToolCall, read_messages

CALL = {"id": "call-1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
IMAGE = [
    {"type": "text", "text": "What is "},
    {"type": "image_url", "image_url": {"url": "http://x"}},
    {"type": "text", "text": "this?"},
]


class Dumped:
    """An object of a library such as pydantic, within which objects of its kind may stand."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, Any]:
        """Return the fields."""
        return self.fields


@attrs.define
class Attrs:
    """A message of somebody's own, made with attrs."""

    role: str
    content: str | None
    name: str | None = None


@dataclasses.dataclass
class Data:
    """A message of somebody's own, made as a dataclass."""

    role: str
    content: Any


def test_builders():
    """`system`, `user`, `assistant` and `tool` make messages."""
    call = ToolCall(id="call-1", function=FunctionCall(name="f", arguments="{}"))
    assert read_messages(
        [system("a"), user("b"), assistant("c"), assistant(None, [call]), tool("d", tool_call_id="1")]
    ) == (
        Message("system", "a"),
        Message("user", "b"),
        Message("assistant", "c"),
        Message("assistant", None, {"tool_calls": [CALL]}),
        Message("tool", "d", {"tool_call_id": "1"}),
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (MappingProxyType({"role": "user", "content": "", "name": "me"}), Message("user", "", {"name": "me"})),
        ({"role": "user", "content": IMAGE}, Message("user", IMAGE)),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            Message("assistant", None, {"tool_calls": [CALL]}),
        ),
        ({"role": "assistant", "tool_calls": [CALL]}, Message("assistant", None, {"tool_calls": [CALL]})),
        ({"role": "tool", "tool_call_id": "1", "content": "x"}, Message("tool", "x", {"tool_call_id": "1"})),
        ({"role": "developer", "content": "x"}, Message("developer", "x")),
        (
            Dumped(role="assistant", content="x", refusal=None, annotations=[]),
            Message("assistant", "x", {"annotations": []}),
        ),
        (
            Dumped(role="assistant", content=None, tool_calls=[Dumped(**CALL)]),
            Message("assistant", None, {"tool_calls": [CALL]}),
        ),
        ({"role": "assistant", "tool_calls": [Dumped(**CALL)]}, Message("assistant", None, {"tool_calls": [CALL]})),
        (Attrs("user", "x"), Message("user", "x")),
        (Attrs("user", "x", "me"), Message("user", "x", {"name": "me"})),
        (Data("user", [{"type": "text", "text": "x"}]), Message("user", [{"type": "text", "text": "x"}])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_forms(given, message):
    """Mappings, parts, and objects of other libraries are messages; their None is not sent."""
    assert read_messages([given]) == read_messages(item for item in (given,)) == (message,)


def test_an_answer_s_message():
    """The message of an answer is a message as it stands, its tool calls included, its reasoning not."""
    calls = (ToolCall(id="call-1", function=FunctionCall(name="f", arguments="{}")),)
    given = [AssistantMessage(content="x", reasoning_content="hm"), AssistantMessage(tool_calls=calls)]
    assert read_messages(given) == (assistant("x"), Message("assistant", None, {"tool_calls": [CALL]}))
    assert encode_messages(read_messages(given)[1:]) == (
        b'{"role":"assistant","content":null,"tool_calls":'
        b'[{"id":"call-1","type":"function","function":{"name":"f","arguments":"{}"}}]}'
    )


@pytest.mark.parametrize(
    ("role", "content", "extra", "field"),
    [
        ("", "x", {}, "role"),
        (None, "x", {}, "role"),
        (7, "x", {}, "role"),
        ("user", 7, {}, "content"),
        ("user", b"x", {}, "content"),
        ("user", None, {}, "content"),
        ("assistant", None, {"tool_calls": []}, "content"),
        ("user", [], {}, "content"),
        ("user", ["x"], {}, "content"),
        ("user", {"type": "text"}, {}, "content"),
        ("user", [{"type": "text", "text": {1, 2}}], {}, "content[0]['text']"),
        ("user", "x", {"role": "system"}, "extra['role']"),
        ("user", "x", {"name": float("nan")}, "extra['name']"),
        ("user", "x", [1], "extra"),
    ],
)
def test_what_is_no_message(role, content, extra, field):
    """A message checks itself when it is made; within a list the error says which message it is."""
    with pytest.raises(InvalidInputError) as caught:
        Message(role, content, extra)
    assert caught.value.field == field
    if isinstance(extra, dict) and "role" not in extra:
        with pytest.raises(InvalidInputError) as caught:
            read_messages([user("x"), {"role": role, "content": content, **extra}])
        assert caught.value.field == f"messages[1].{field}"


class Role(StrEnum):
    """The roles of a caller's own."""

    USER = "user"


def test_roles_that_are_unknown(log_lines):
    """A role that the documents do not name is sent as given, and logged for debugging, short and on one line."""
    known = [system("a"), user("b"), assistant("c"), tool("d", tool_call_id="1"), {"role": Role.USER, "content": "e"}]
    assert type(read_messages(known)[-1].role) is str
    assert log_lines("DEBUG") == []
    odd = "critic\n" + "x" * 1000
    roles = ("developer", odd)
    assert [message.role for message in read_messages([{"role": role, "content": "x"} for role in roles])] == [*roles]
    first, second = log_lines("DEBUG")
    assert "developer" in first
    assert "critic\\nxxx" in second
    assert len(second) < 200


@pytest.mark.parametrize("bad", [[], (), "hi", b"hi", {"role": "user", "content": "x"}, user("x"), None, 7])
def test_what_is_no_list_of_messages(bad):
    """A list of at least one message is wanted, not a message, not a text."""
    with pytest.raises(InvalidInputError, match=r"^messages must be a list of "):
        read_messages(bad)


@pytest.mark.parametrize("bad", ["hi", 7, None, [user("x")], object])
def test_an_item_that_is_no_message(bad):
    """The place of an item that is no message is said."""
    with pytest.raises(InvalidInputError, match=r"^messages\[1\] must be a Message"):
        read_messages([user("x"), bad])


def test_messages_are_values():
    """Messages can be hashed and compared, also those with parts and further keys."""
    assert len({user("a"), user("a"), user("b"), system("a"), user(IMAGE), user(IMAGE)}) == 4
    assert hash(Message("user", "a", {"name": "b"})) == hash(user("a"))
    parts = [{"type": "text", "text": "x"}]
    message = user(parts)
    parts[0]["text"] = "y"
    assert message == user([{"type": "text", "text": "x"}])


def test_the_text_of_a_message():
    """Of parts, the text is that of the text parts."""
    assert (user("x").text, user(IMAGE).text, assistant(None, [CALL]).text) == ("x", "What is this?", "")
