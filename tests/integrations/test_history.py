"""What a conversation has of a call's messages."""

from typing import Any

import pytest

from ctxcache import InvalidInputError, assistant, system, tool, user
from ctxcache.integrations.history import is_end, new_turn


def calling(arguments: str) -> Any:
    """An answer with a call."""
    return assistant(None, [{"id": "call_1", "function": {"name": "a", "arguments": arguments}}])


KEPT = (system("s"), user("q"), calling('{"x": 1}'), tool("r", tool_call_id="call_1"), assistant("a"))


@pytest.mark.parametrize(
    ("messages", "new"),
    [
        ((user("new"),), 1),
        ((*KEPT, user("new")), 1),
        ((*KEPT[3:], user("new"), user("newer")), 2),
        ((KEPT[0], KEPT[1], calling('{ "x":1 }'), *KEPT[3:], user("new")), 1),
    ],
)
def test_new_turn(messages: Any, new: int) -> None:
    """The new turn follows the last answer, and what is before has to be the conversation's."""
    assert new_turn(messages, KEPT) == messages[-new:]


def test_the_beginning() -> None:
    """Before the first answer the beginning may be repeated."""
    assert new_turn((system("s"), user("new")), KEPT[:1]) == (user("new"),)


@pytest.mark.parametrize(
    "messages",
    [
        (),
        KEPT,
        KEPT[:1],
        (system("t"), user("new")),
        (assistant("b"), user("new")),
        (user("before"), *KEPT, user("new")),
        (*KEPT[:2], calling('{"x": 2}'), *KEPT[3:], user("new")),
    ],
)
def test_what_does_not_fit(messages: Any) -> None:
    """Another history, or no new turn, is refused by name."""
    with pytest.raises(InvalidInputError, match="messages must be"):
        new_turn(messages, KEPT)


def test_arguments_that_are_no_object() -> None:
    """Such arguments are compared as Pydantic AI sends them."""
    for wrong, sent in (("{", '{"INVALID_JSON":"{"}'), ("[1]", '{"INVALID_JSON":"[1]"}')):
        assert is_end((calling(sent),), (calling(wrong),))
    assert not is_end((), KEPT)
