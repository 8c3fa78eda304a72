"""The answers: tolerant, frozen, with the raw JSON at hand."""

import copy
import pickle

import attrs
import pytest

from ctxcache import (
    ProtocolError,
    models,
    user,
)
from ctxcache.models import (
    AssistantMessage,
    ChatCompletion,
    ChatCompletionChunk,
    ChatRequest,
    Choice,
    ChoiceDelta,
    ChunkChoice,
    Context,
    ContextRequest,
    PromptTokensDetails,
    Usage,
)

HELLO = [user("Hello")]


def chat(**fields):
    """A chat request with what is required."""
    return ChatRequest(**{"context_id": "c", "model": "m", "messages": HELLO, **fields})


def context(**fields):
    """A context request with what is required."""
    return ContextRequest(**{"model": "m", "messages": HELLO, **fields})


def test_usage():
    """`prompt_tokens` includes the cached ones: fresh is the difference."""
    usage = Usage(prompt_tokens=100, completion_tokens=5, prompt_tokens_details=PromptTokensDetails(cached_tokens=80))
    assert (usage.cached_tokens, usage.fresh_tokens) == (80, 20)
    assert (Usage(prompt_tokens=7).cached_tokens, Usage(prompt_tokens=7).fresh_tokens) == (0, 7)


def test_text_and_finish_reason():
    """`text` and `finish_reason` are those of choice 0, wherever it stands; empty and None without it."""

    def choice(index, text):
        return Choice(index=index, message=AssistantMessage(content=text), finish_reason=f"r{index}")

    answer = ChatCompletion(choices=(choice(1, "b"), choice(0, "a")))
    assert (answer.text, answer.finish_reason) == ("a", "r0")
    assert (ChatCompletion(choices=(choice(1, "b"),)).text, ChatCompletion().text) == ("", "")
    assert (ChatCompletion(choices=(choice(1, "b"),)).finish_reason, ChatCompletion().finish_reason) == (None, None)
    assert ChatCompletion(choices=(choice(0, None),)).text == ""
    chunk = ChatCompletionChunk(choices=(ChunkChoice(index=1, delta=ChoiceDelta(content="b")),))
    assert (chunk.text, ChatCompletionChunk().text, ChatCompletionChunk(choices=(ChunkChoice(),)).text) == ("", "", "")


@pytest.mark.parametrize("data", [b"{", b"[" * 100_000, b'{"x":"\x01"}', b'{"x":1', b"\xff"], ids=range(5))
@pytest.mark.parametrize("kind", [ChatCompletion, ChatCompletionChunk])
def test_raw_that_cannot_be_read(kind, data):
    """JSON that Python cannot read is a `ProtocolError` from `raw`, with nothing of the parser's hanging on it."""
    with pytest.raises(ProtocolError, match="cannot be read as JSON") as caught:
        _ = kind(raw_json=data).raw
    assert caught.value.__context__ is caught.value.__cause__ is None


def test_raw_of_what_was_made_by_hand():
    """An object that came from no JSON has an empty `raw`."""
    assert (ChatCompletion().raw, Context(id="c").raw, ChatCompletionChunk().raw) == ({}, {}, {})


@pytest.mark.parametrize("name", [name for name in models.__all__ if attrs.has(getattr(models, name, None))])
def test_frozen_values(name):
    """Every model is a frozen attrs class with slots, documented, and pickles."""
    kind = getattr(models, name)
    assert kind.__doc__
    assert "__dict__" not in dir(kind)
    required = {
        "messages": HELLO,
        "message": AssistantMessage(),
        "role": "user",
        "content": "x",
        "type": "rolling_tokens",
    }
    made = kind(**{f.name: required.get(f.name, "x") for f in attrs.fields(kind) if f.default is attrs.NOTHING})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, attrs.fields(kind)[0].name, 1)
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)


def test_ids_do_not_count_in_comparisons():
    """Two answers are equal by what they say, not by the ids of their transport."""
    assert ChatCompletion(id="c", request_id="a", raw_json=b"x") == ChatCompletion(id="c", request_id="b")
