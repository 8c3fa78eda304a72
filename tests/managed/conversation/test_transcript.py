"""`transcript`: the messages of a conversation, as a value."""

import attrs
import pytest
from hypothesis import given

from ctxcache import FunctionCall, InvalidInputError, Message, ToolCall, assistant, system, tool, user
from ctxcache.managed.conversation.saved import SavedConversation
from ctxcache.managed.conversation.transcript import Transcript

from .said_things import BEGUN, QUESTION, transcripts


def said(messages):
    """Roles and contents, in short."""
    return [f"{message.role[0]}:{message.content}" for message in messages]


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


@given(transcripts)
def test_any_transcript(transcript):
    """What is for the create and what travels make up the whole; the first does not end with the assistant's."""
    created, carried = transcript.split()
    assert created + carried == transcript.whole
    assert created[-1].role != "assistant"
    assert all(message.role == "assistant" for message in carried)
    further = len(transcript.turns) - transcript.keep_turns
    assert all(turn.question[0].role == "tool" for turn in transcript.turns[1 : further + 1])


@given(transcripts)
def test_any_tool_call(transcript):
    """In any transcript each tool call but those at the end is answered right behind, and no result has no call."""
    asked, answered = set(), set()
    for message in transcript.whole[len(transcript.messages) :]:
        if message.role == "tool":
            answered.add(message.extra["tool_call_id"])
            assert answered <= asked
        else:
            assert asked == answered
            calls = message.extra.get("tool_calls", []) if message.role == "assistant" else []
            asked, answered = {call["id"] for call in calls if isinstance(call, dict)}, set()


def asks(*ids):
    """Tool calls of these ids."""
    return tuple(ToolCall(id=id_, function=FunctionCall(name="f", arguments="{}")) for id_ in ids)


def test_a_tool_round_is_never_cut():
    """Of a chain of calls and results all turns are kept, and dropped as a whole once later turns fill the number."""
    chain = BEGUN.added(QUESTION, None, asks("a")).added((tool("1", tool_call_id="a"),), None, asks("b"))
    chain = attrs.evolve(chain.added((tool("2", tool_call_id="b"),), "Three"), keep_turns=1)
    assert said(chain.whole) == ["s:Be brief.", "u:Who?", "a:None", "t:1", "a:None", "t:2", "a:Three"]
    assert said(chain.added(QUESTION, "Me.").whole) == ["s:Be brief.", "u:Who?", "a:Me."]


@pytest.mark.parametrize(
    ("answer", "calls", "question", "whole"),
    [
        (None, "ab", [tool("1", tool_call_id="a"), tool("2", tool_call_id="b")], ["a:None/a/b", "t:1", "t:2"]),
        (None, "ab", [tool("1", tool_call_id="b"), user("And?")], ["a:None/b", "t:1", "u:And?"]),
        (None, "a", [user("Never mind")], ["u:Never mind"]),
        ("Let me see", "a", [user("Never mind")], ["a:Let me see", "u:Never mind"]),
        ("Me.", "", [tool("1", tool_call_id="a"), user("And?")], ["a:Me.", "u:And?"]),
        (None, "a", [tool("1", tool_call_id="z"), user("And?")], ["u:And?"]),
    ],
    ids=["answered", "in part", "ignored", "ignored beside text", "no call", "another call"],
)
def test_calls_and_results_go_together(answer, calls, question, whole):
    """A rebuilt context holds the calls that the next turn answers, and the results of calls."""
    transcript = Transcript(messages=(system("S"),)).added(QUESTION, answer, asks(*calls)).added(tuple(question), None)
    found = [
        "/".join([text, *(call["id"] for call in message.extra.get("tool_calls", ()))])
        for text, message in zip(said(transcript.whole), transcript.whole, strict=True)
    ]
    assert found == ["s:S", "u:Who?", *whole]


def test_the_calls_of_an_unfinished_answer_are_dropped():
    """Their arguments may be cut; the text stays."""
    [*_, turn] = BEGUN.added(QUESTION, "Let me", asks("a"), finished=False).turns
    assert (turn.answer, turn.tool_calls) == ("Let me", ())


@pytest.mark.parametrize("calls", ["f", [5], [{"id": ["a"]}], {"id": "a"}])
def test_strange_tool_calls(calls):
    """Initial messages may carry what no service would send; no rebuild fails of it."""
    first = (system("S"), Message("assistant", "A", {"tool_calls": calls}))
    assert Transcript(messages=first).added(QUESTION, "Me.").whole[0] == first[0]
