"""Any transcript, for Hypothesis, and one to begin with."""

from hypothesis import strategies as st

from ctxcache import Message, system, user
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

messages = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), any_text, extra=extras)

questions = st.lists(messages, min_size=1, max_size=3).map(tuple)

turns = st.builds(TranscriptTurn, questions, st.none() | any_text.filter(bool), st.booleans())

transcripts = st.builds(
    Transcript,
    messages=questions.filter(lambda given: any(message.role != "assistant" for message in given)),
    turns=st.lists(turns, max_size=5).map(tuple),
    keep_turns=st.integers(1, 4),
)
