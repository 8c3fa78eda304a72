"""The calls of a `Prefix` and a `Conversation`: the same parameters, defaults of their own."""

import pytest

from ctxcache import UNSET, Conversation, OutcomeUnknownError, Prefix, Retry, system

from ..hostile import CLOSE, answer, chunk, streamed
from .conversation.talk import made, says

START = {"model": "m", "messages": [system("Be brief.")]}


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_defaults(hostile, session_for, kind):
    """`chat_defaults` are for calls that do not give their own, on top of the session's; `UNSET` leaves one out."""
    hostile.plays(made(), says("a"), says("b"), says("c"), [streamed(chunk("d", "stop"))])
    session = session_for(chat_defaults={"temperature": 0.5, "max_tokens": 9})
    managed = kind(session, **START, chat_defaults={"temperature": 1, "top_p": 0.5})
    await managed.ask("?")
    await managed.ask("?", top_p=0.9, temperature=None)
    await managed.ask("?", top_p=UNSET)
    async for _ in managed.stream("?"):
        pass
    names = ("temperature", "max_tokens", "top_p", "stream_options")
    asked = [tuple(post.json.get(name) for name in names) for post in hostile.posts[1:]]
    usage = {"include_usage": True}
    assert asked == [(1, 9, 0.5, None), (1, 9, 0.9, None), (1, 9, None, None), (1, 9, 0.5, usage)]


async def test_defaults_of_a_loaded_conversation(hostile, session_for):
    """Defaults are not saved: `load` takes them anew."""
    hostile.plays(made(), says("a"), says("b"))
    session = session_for()
    first = Conversation(session, **START, chat_defaults={"temperature": 1})
    await first.ask("?")
    await Conversation.load(session, first.save(), chat_defaults={"top_p": 0.5}).ask("?")
    assert [(post.json.get("temperature"), post.json.get("top_p")) for post in hostile.posts[1:]] == [
        (1, None),
        (None, 0.5),
    ]


@pytest.mark.parametrize("options", [{}, {"repeatable": UNSET}, {"repeatable": None}, {"repeatable": False}])
async def test_no_default_makes_a_turn_repeatable(hostile, session_for, options):
    """A turn is never sent twice, even where the defaults of the session say that chats may be."""
    hostile.plays(made(), [CLOSE], [answer()])
    session = session_for(chat_defaults={"repeatable": True}, retry=Retry(first_delay=0))
    with pytest.raises(OutcomeUnknownError):
        await Conversation(session, **START).ask("?", **options)
    assert len(hostile.posts) == 2
