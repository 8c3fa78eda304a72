"""`saved`: a conversation as JSON."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import UNSET, FunctionCall, InvalidInputError, ToolCall, TruncationStrategy, user
from ctxcache.managed.conversation.saved import SavedContext, SavedConversation
from ctxcache.managed.conversation.transcript import Transcript

from .said_things import BEGUN, questions, transcripts

seconds = st.floats(0, 1e12)

contexts = st.builds(
    SavedContext,
    id=st.text(min_size=1),
    ttl=seconds,
    expires_at=seconds,
    account=st.text(min_size=1),
    behind=st.booleans(),
    lost=st.sampled_from(["gone", "resync", None]),
)

strategies = st.just(UNSET) | st.sampled_from(
    [
        TruncationStrategy(type="rolling_tokens", rolling_tokens=False),
        TruncationStrategy(type="last_history_tokens", last_history_tokens=9, max_window_tokens=5),
    ]
)

conversations = st.builds(
    SavedConversation,
    model=st.text(min_size=1),
    transcript=transcripts,
    ttl=st.just(UNSET) | st.integers(3600, 604800),
    truncation_strategy=strategies,
    margin=seconds,
    in_doubt=st.sampled_from(["raise", "drop", "keep"]),
    context=st.none() | contexts,
    doubtful=st.none() | questions,
)


@given(conversations)
def test_round_trip(saved):
    """Any conversation is read as it was written."""
    assert SavedConversation.loads(saved.dumps()) == saved


SAVED = SavedConversation(
    model="m",
    transcript=Transcript(
        messages=BEGUN.messages,
        turns=(attrs.evolve(BEGUN.turns[0], tool_calls=(ToolCall(id="call-1", function=FunctionCall(name="f")),)),),
    ),
    margin=30.0,
    context=SavedContext(id="ctx-1", ttl=3600.0, expires_at=1e9, account="f", behind=True),
    doubtful=(user("Why?"),),
)


REMOVED = object()


WRONG = {
    "format": ["other", None, 1, REMOVED],
    "version": [2, "1", None, REMOVED],
    "model": ["", 5, REMOVED],
    "ttl": [1, "3600", 1e9],
    "truncation_strategy": [5, {"type": "other"}, {"type": "rolling_tokens", "more": 1}],
    "margin": [-1, None, "30", True, 1e300, 10**400, REMOVED],
    "in_doubt": ["ask", None, 5],
    "keep_turns": [0, 1.5, None, True, REMOVED],
    "messages": [None, "text", [], [5], [{"role": "assistant", "content": "x"}], REMOVED],
    "messages.0.role": ["", 5, REMOVED],
    "messages.0.content": [None, ["x"], {}, REMOVED],
    "turns": [None, {}, [5], REMOVED],
    "turns.0.question": [None, [], ["x"], REMOVED],
    "turns.0.answer": [5, ["x"]],
    "turns.0.finished": [None, 1, REMOVED],
    "turns.0.tool_calls": [None, {}, ["x"]],
    "turns.0.tool_calls.0.id": [None, 5, REMOVED],
    "turns.0.tool_calls.0.type": [None, REMOVED],
    "turns.0.tool_calls.0.function": [None, "f", REMOVED],
    "turns.0.tool_calls.0.function.name": [5, REMOVED],
    "turns.0.tool_calls.0.function.arguments": [{}, REMOVED],
    "context": ["ctx-1", []],
    "context.id": [None, "", REMOVED],
    "context.ttl": [None, -1, REMOVED],
    "context.expires_at": ["soon", None, REMOVED],
    "context.account": [None, "", REMOVED],
    "context.behind": [None, REMOVED],
    "context.lost": ["expired", 5, True],
    "doubtful": [[], "x", [None]],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in WRONG.items() for value in values])
def test_wrong_fields(path, value):
    """A field that is missing or of the wrong kind is refused by its name."""
    data = json.loads(SAVED.dumps())
    inner = data
    *way, last = path.split(".")
    for key in way:
        inner = inner[int(key)] if isinstance(inner, list) else inner[key]
    if value is REMOVED:
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(InvalidInputError) as caught:
        SavedConversation.loads(json.dumps(data))
    assert path.split(".")[0] in caught.value.field
    assert path.split(".")[-1] in caught.value.message


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"secret"', "secret", "{}", "[" * 100_000, '{"model": ' + "9" * 5000 + "}", b"{}", None],
)
def test_foreign_text(text):
    """What is no saved conversation is refused, and not shown."""
    with pytest.raises(InvalidInputError) as caught:
        SavedConversation.loads(text)
    assert caught.value.field in ("text", "format")
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_errors_show_no_content():
    """An error about a message names its place, and shows nothing of it."""
    data = json.loads(SAVED.dumps())
    data["turns"][0]["question"][0]["content"] = ["secret"]
    with pytest.raises(
        InvalidInputError, match=r"turns\[0\]\.question\[0\]\.content must be a string, a list of parts, or None"
    ) as caught:
        SavedConversation.loads(json.dumps(data))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"name": float("nan")}, r"messages\[0\]\.extra\['name'\] must be a finite number$"),
        ({"name": {"a": [1, float("inf")]}}, r"messages\[0\]\.extra\['name'\]\['a'\]\[1\]"),
        ({"name": 10**300}, r"messages\[0\]\.extra\['name'\]"),
    ],
)
def test_loads_refuses_what_could_not_be_saved(changes, place):
    """Python's reader takes NaN and the like for JSON; a conversation with them could not be saved again."""
    data = json.loads(SAVED.dumps())
    data["messages"][0].update(changes)
    with pytest.raises(InvalidInputError, match=place) as caught:
        SavedConversation.loads(json.dumps(data))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"format": "ctxcache.conversation",\n "secret": }', "line 2, column 12"),
        ("", "line 1, column 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"model": ' + "9" * 5000 + "}", "a number too long"),
    ],
)
def test_an_error_says_where_a_file_is_spoilt(text, place):
    """By line and column, without a word of the text."""
    with pytest.raises(InvalidInputError, match=place) as caught:
        SavedConversation.loads(text)
    assert "secret" not in str(caught.value)


def test_an_older_file():
    """A conversation that was saved before there were tool calls and `in_doubt` is read, with their defaults."""
    data = json.loads(SAVED.dumps())
    del data["turns"][0]["tool_calls"], data["in_doubt"]
    saved = SavedConversation.loads(json.dumps(data))
    assert (saved.transcript.turns[0].tool_calls, saved.in_doubt) == ((), "raise")


def test_a_file_cut_anywhere_is_refused():
    """No part of a saved conversation is one."""
    text = SAVED.dumps()
    for end in range(len(text)):
        with pytest.raises(InvalidInputError, match="from line 1, column"):
            SavedConversation.loads(text[:end])
