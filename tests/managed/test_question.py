"""`question`: a question in any of its forms, and the options that are not the caller's."""

import pytest

from ctxcache import InvalidInputError, assistant, system, user
from ctxcache.managed.question import read_question, refuse_own_options


@pytest.mark.parametrize(
    ("question", "messages"),
    [
        ("Hi", (user("Hi"),)),
        (system("Hi"), (system("Hi"),)),
        ({"role": "user", "content": "Hi"}, (user("Hi"),)),
        ([user("a"), {"role": "assistant", "content": "b"}], (user("a"), assistant("b"))),
        (iter([user("a")]), (user("a"),)),
    ],
)
def test_forms_of_a_question(question, messages):
    """A string is a user's message, a message stands for itself, a list is as it is."""
    assert read_question(question) == messages


@pytest.mark.parametrize("question", [5, None, b"Hi", [], [5], [b"Hi"]])
def test_anything_else_is_refused(question):
    """By name."""
    with pytest.raises(InvalidInputError, match=r"question|messages|role"):
        read_question(question)


@pytest.mark.parametrize("name", ["context_id", "model", "messages", "stream", "serialize"])
def test_options_that_are_not_the_caller_s(name):
    """Neither as an option nor in `extra_body`, whose fields win; their values are not shown."""
    for options, field in (({name: "secret"}, name), ({"extra_body": {name: "secret"}}, f"extra_body[{name!r}]")):
        with pytest.raises(InvalidInputError) as caught:
            refuse_own_options(options, "serialize")
        assert caught.value.field == field
        assert "secret" not in str(caught.value)


def test_other_options_are_let_through():
    """They are checked elsewhere."""
    refuse_own_options({"temperature": 0.5, "extra_body": {"seed": 1}})
    refuse_own_options({"extra_body": 5})
