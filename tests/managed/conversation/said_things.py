"""Any transcript, for Hypothesis, and one to begin with."""

from hypothesis import strategies as st

from ctxcache import FunctionCall, Message, ToolCall, system, tool, user
from ctxcache.managed.conversation.transcript import Transcript, TranscriptTurn

QUESTION = (user("Who?"),)

BEGUN = Transcript(messages=(system("Be brief."),), turns=(TranscriptTurn(QUESTION, "Me."),))

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

contents = any_text | st.lists(st.fixed_dictionaries({"type": st.text(), "text": st.text()}), min_size=1, max_size=2)

messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), contents, extra=extras)

call_ids = st.sampled_from("ab")

calls = st.builds(ToolCall, id=call_ids, function=st.builds(FunctionCall, name=st.text(), arguments=st.text()))

results = st.builds(tool, any_text, tool_call_id=call_ids)

questions = st.lists(messages, min_size=1, max_size=3).map(tuple)

turns = st.builds(
    TranscriptTurn,
    questions | st.lists(results, min_size=1, max_size=2).map(tuple),
    st.none() | any_text.filter(bool),
    st.booleans(),
    st.lists(calls, max_size=2, unique_by=lambda call: call.id).map(tuple),
)

transcripts = st.builds(
    Transcript,
    messages=questions.filter(lambda given: any(message.role != "assistant" for message in given)),
    turns=st.lists(turns, max_size=5).map(tuple),
    keep_turns=st.integers(1, 4),
)
