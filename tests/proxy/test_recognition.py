"""Recognition: marks, registered beginnings, and that no message is lost or doubled."""

import copy
import doctest
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import InvalidInputError, assistant, codec, system, user
from ctxcache.proxy import recognition
from ctxcache.proxy.learning import Learner
from ctxcache.proxy.recognition import Chat, Registry, read_body, read_chat, unmark

MARK = {"type": "ephemeral"}
NO_REGISTRY = Registry()

texts = st.text(st.characters(codec="utf-8"), max_size=8)
parts = st.fixed_dictionaries(
    {"type": st.just("text"), "text": texts},
    optional={"cache_control": st.sampled_from([MARK, {**MARK, "ttl": "1h"}, {"type": "other"}, None, "ephemeral"])},
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant"]), "content": texts | st.lists(parts, min_size=1)},
    optional={"cache_control": st.sampled_from([MARK, {"type": "other"}, 1]), "name": texts},
)


def stripped(item: Any) -> Any:
    """Any JSON without ephemeral marks."""
    if isinstance(item, list):
        return [stripped(each) for each in item]
    if isinstance(item, dict):
        return {
            name: stripped(value)
            for name, value in item.items()
            if not (name == "cache_control" and isinstance(value, dict) and value.get("type") == "ephemeral")
        }
    return item


def sent(part: Any) -> Any:
    """Messages as they are sent."""
    return json.loads(b"[%b]" % codec.encode_messages(part))


@given(st.lists(messages, min_size=1, max_size=6), st.integers(0, 6), st.booleans())
def test_beginning_and_rest_are_what_was_asked(asked: Any, length: int, stream: bool) -> None:
    """Each beginning and the messages after it are the messages asked, without marks, once and in order."""
    before = copy.deepcopy(asked)
    plain, marked = unmark(asked)
    whole = read_chat({"model": "m", "messages": plain}, (), NO_REGISTRY).messages
    registry = Registry([("m", whole[:length] or [user("-")])])
    chat = read_chat({"model": "m", "messages": plain, "stream": stream, "x": 1}, marked, registry)
    assert asked == before
    assert sent(chat.messages) == stripped(asked)
    assert (chat.stream, chat.fields) == (stream, {"x": 1})
    for beginning in chat.beginnings:
        first, rest = chat.messages[: beginning.length], chat.messages[beginning.length :]
        assert first
        assert rest
        assert first[-1].role != "assistant"
        assert sent(first) + sent(rest) == stripped(asked)
        assert beginning.registered == (beginning.length == length)
        assert beginning.registered or beginning.length in marked
    lengths = [beginning.length for beginning in chat.beginnings]
    assert lengths == sorted(set(lengths), reverse=True)


@given(st.lists(messages, min_size=2, max_size=5), st.lists(messages, min_size=2, max_size=5))
def test_keys_tell_beginnings_apart(one: Any, other: Any) -> None:
    """Two beginnings have the same key if, and only if, model and messages are the same."""

    def keys(asked: Any, model: str) -> dict[bytes, Any]:
        chat = read_chat({"model": model, "messages": unmark(asked)[0]}, range(9), NO_REGISTRY)
        return {found.key: (model, sent(chat.messages[: found.length])) for found in chat.beginnings}

    merged = [*keys(one, "m").items(), *keys(other, "m").items(), *keys(one, "n").items()]
    for key, value in merged:
        assert all((key == another) == (value == its) for another, its in merged)


def test_marks() -> None:
    """A mark counts on the message and on the last part of the content; anywhere else it is only taken away."""
    text = {"type": "text", "text": "x"}
    asked = [
        {"role": "system", "content": "a", "cache_control": MARK},
        {"role": "user", "content": [{**text, "cache_control": MARK}, text]},
        {"role": "user", "content": [text, {**text, "cache_control": {**MARK, "ttl": "1h"}}]},
        {"role": "user", "content": "b", "cache_control": {"type": "persistent"}},
    ]
    plain, marked = unmark(asked)
    assert marked == [1, 3]
    assert plain == [
        {"role": "system", "content": "a"},
        {"role": "user", "content": [text, text]},
        {"role": "user", "content": [text, text]},
        asked[3],
    ]


@pytest.mark.parametrize("odd", [None, "text", {"role": "user"}, 3, [1, None, "x", ["y"]], [{"content": [1]}]])
def test_odd_messages_stay(odd: Any) -> None:
    """What is no list of messages has no marks, and stays as it is."""
    assert unmark(odd) == (odd, [])


def test_registered() -> None:
    """A registered beginning is found for its model alone, whole, and with at least one message after it."""
    registry = Registry([("m", [system("a"), user("b")]), ("m", [system("a")])])

    def found(model: str, *said: Any) -> list[tuple[int, bool]]:
        return [(one.length, one.registered) for one in registry.beginnings(model, said, [1])]

    assert found("m", system("a"), user("b"), user("c")) == [(2, True), (1, True)]
    assert found("m", system("a"), user("b")) == [(1, True)]
    assert found("m", system("a"), user("other"), user("c")) == [(1, True)]
    assert found("other", system("a"), user("b"), user("c")) == [(1, False)]
    assert found("m", system("a")) == []


def test_learned() -> None:
    """A beginning is learned for its model, word for word, and the shorter ones with it; none ends with a reply."""
    registry = Registry(learner=Learner(2, 1))

    def found(model: str, *said: Any) -> list[tuple[int, bool]]:
        chat = Chat(model, said, {}, False, registry.beginnings(model, said, []))
        return [(one.length, one.registered) for one in registry.learn(chat).beginnings]

    long = system("long " * 9)
    assert found("m", long, user("long " * 9), user("c")) == []
    assert found("other", long, user("c")) == []
    assert found("m", long, assistant("long " * 9), user("b"), user("c")) == [(1, False)]
    assert found("m", long, assistant("long " * 9), user("b"), user("d")) == [(3, False), (1, False)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "m"},
        {"messages": [{"role": "user", "content": "x"}]},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": 1},
    ],
)
def test_what_cannot_be_sent(body: dict[str, Any]) -> None:
    """A body that is no chat of this package is refused with an error of the family."""
    with pytest.raises(InvalidInputError):
        read_chat(body, (), NO_REGISTRY)


@pytest.mark.parametrize("marked", [True, False])
def test_body(marked: bool) -> None:
    """A body without marks goes on byte for byte; of another only the marks are gone."""
    plain = {"model": "m", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}], "x": 1.0}
    body = copy.deepcopy(plain)
    if marked:
        body["messages"][0]["cache_control"] = MARK
    sent = json.dumps(body, indent=3).encode()
    left, chat = read_body(sent, body, NO_REGISTRY)
    assert json.loads(left) == plain
    assert (left == sent) is not marked
    assert chat is not None
    assert [beginning.length for beginning in chat.beginnings] == ([1] if marked else [])


def test_body_that_cannot_be_sent() -> None:
    """A body that is no chat of this package goes on without marks, for a service that can read more."""
    body = {"messages": [{"role": "odd", "cache_control": MARK}], "context_id": 5}
    left, chat = read_body(json.dumps(body).encode(), body, NO_REGISTRY)
    assert (json.loads(left), chat) == ({"messages": [{"role": "odd"}], "context_id": 5}, None)


def test_a_chat_without_a_learner_stays() -> None:
    """Where nothing is learned, a chat has the beginnings that were named."""
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in "abc"]}
    chat = read_chat(body, [1], NO_REGISTRY)
    assert NO_REGISTRY.learn(chat) is chat


def test_null_is_left_out() -> None:
    """Null stands for a field that was not given."""
    chat = read_chat({"model": "m", "messages": [{"role": "user", "content": "x"}], "stop": None}, (), NO_REGISTRY)
    assert (chat.fields, chat.stream) == ({}, False)


def test_examples() -> None:
    """The examples in the docstrings are right."""
    assert doctest.testmod(recognition) == (0, 1)
