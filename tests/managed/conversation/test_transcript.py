"""The transcript, and the JSON a conversation is saved as."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcache import UNSET, InvalidInputError, Message, TruncationStrategy, assistant, system, user
from ctxcache.managed.conversation.saved import SavedContext, SavedConversation
from ctxcache.managed.conversation.transcript import Transcript, TranscriptTurn

QUESTION = (user("Who?"),)
BEGUN = Transcript(messages=(system("Be brief."),), turns=(TranscriptTurn(QUESTION, "Me."),))


def said(messages):
    """Roles and contents, in short."""
    return [f"{message.role[0]}:{message.content}" for message in messages]


# --- the transcript ---------------------------------------------------------------------------------------------------


def test_whole():
    """A transcript as messages is the initial ones, then each question and, where text came, its answer."""
    transcript = BEGUN.added((user("A?"), user("B?")), None).added((user("C?"),), "Sea", finished=False)
    assert said(transcript.whole) == ["s:Be brief.", "u:Who?", "a:Me.", "u:A?", "u:B?", "u:C?", "a:Sea"]
    assert [turn.finished for turn in transcript.turns] == [True, True, False]


def test_it_is_a_value():
    """What changes a transcript returns another; it itself stays as it was."""
    longer = BEGUN.added(QUESTION, "You.")
    assert (len(BEGUN.turns), len(longer.turns)) == (1, 2)
    assert longer.without_last() == BEGUN


def test_an_empty_answer_is_none():
    """An answer without text is kept as None, and left out of the messages."""
    transcript = BEGUN.added(QUESTION, "")
    assert transcript.turns[-1].answer is None
    assert transcript.whole[-1] == user("Who?")


def test_the_oldest_turns_are_dropped():
    """Beyond `keep_turns` the oldest turns are dropped, the initial messages never."""
    transcript = Transcript(messages=(system("S"), assistant("Hi")), keep_turns=2)
    for number in range(5):
        transcript = transcript.added((user(f"{number}?"),), f"{number}!")
    assert said(transcript.whole) == ["s:S", "a:Hi", "u:3?", "a:3!", "u:4?", "a:4!"]


def test_split():
    """The assistant's messages at the end are not for the create; whatever else there is, is."""
    assert [said(part) for part in BEGUN.split()] == [["s:Be brief.", "u:Who?"], ["a:Me."]]
    unanswered = BEGUN.added(QUESTION, None)
    assert [said(part) for part in unanswered.split()] == [["s:Be brief.", "u:Who?", "a:Me.", "u:Who?"], []]
    greeting = Transcript(messages=(system("S"), assistant("A"), assistant("B")))
    assert [said(part) for part in greeting.split()] == [["s:S"], ["a:A", "a:B"]]


@pytest.mark.parametrize("messages", [(), (assistant("Hi"),)])
def test_no_context_can_begin_so(messages):
    """Initial messages of the assistant alone, or none, are refused: nothing can be created with them."""
    with pytest.raises(InvalidInputError, match=r"messages must be at least one message that is not the assistant's"):
        Transcript(messages=messages)


@pytest.mark.parametrize("keep_turns", [0, -1, True, 1.5, None])
def test_keep_turns(keep_turns):
    """`keep_turns` is a whole number from 1 up."""
    with pytest.raises(InvalidInputError, match="keep_turns"):
        Transcript(messages=(system("S"),), keep_turns=keep_turns)


def test_content_does_not_print():
    """Neither a transcript nor a turn prints what was said."""
    printed = repr(BEGUN) + repr(BEGUN.turns) + repr(SavedConversation(model="m", transcript=BEGUN, margin=1.0))
    assert not any(text in printed for text in ("Who?", "Me.", "brief"))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
any_text = st.text(st.characters(codec=None))  # lone surrogates, too
extras = st.dictionaries(st.text(min_size=1).filter(lambda name: name not in ("role", "content")), json_values)
messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), any_text, extra=extras)
questions = st.lists(messages, min_size=1, max_size=3).map(tuple)
turns = st.builds(TranscriptTurn, questions, st.none() | any_text.filter(bool), st.booleans())
transcripts = st.builds(
    Transcript,
    messages=questions.filter(lambda given: any(message.role != "assistant" for message in given)),
    turns=st.lists(turns, max_size=5).map(tuple),
    keep_turns=st.integers(1, 4),
)
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
    context=st.none() | contexts,
    doubtful=st.none() | questions,
)


@given(transcripts)
def test_any_transcript(transcript):
    """What is for the create and what travels make up the whole; the first does not end with the assistant's."""
    created, carried = transcript.split()
    assert created + carried == transcript.whole
    assert created[-1].role != "assistant"
    assert all(message.role == "assistant" for message in carried)
    assert len(transcript.turns) <= transcript.keep_turns


# --- saved ------------------------------------------------------------------------------------------------------------


@given(conversations)
def test_round_trip(saved):
    """Any conversation is read as it was written."""
    assert SavedConversation.loads(saved.dumps()) == saved


SAVED = SavedConversation(
    model="m",
    transcript=BEGUN,
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
    "keep_turns": [0, 1.5, None, True, REMOVED],
    "messages": [None, "text", [], [5], [{"role": "assistant", "content": "x"}], REMOVED],
    "messages.0.role": ["tool", 5, REMOVED],
    "messages.0.content": [None, ["x"], REMOVED],
    "turns": [None, {}, [5], REMOVED],
    "turns.0.question": [None, [], ["x"], REMOVED],
    "turns.0.answer": [5, ["x"]],
    "turns.0.finished": [None, 1, REMOVED],
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
        InvalidInputError, match=r"turns\[0\]\.question\[0\]\.content must be a string, got a list"
    ) as caught:
        SavedConversation.loads(json.dumps(data))
    assert "secret" not in str(caught.value)
