"""What a caller gives a managed call shows in no traceback."""

import pytest

from ctxcache import Conversation, Prefix

from ..client.calling import everything, failure
from ..hostile import answer

CREATED = {"id": "ctx-1", "model": "m", "mode": "session", "ttl": 3600, "usage": {"prompt_tokens": 1}}


MESSAGES = [{"role": "system", "content": "Be kind."}]


class Options(dict):
    """Keyword arguments that do not show in the frames of this file."""

    def __repr__(self):
        return "Options()"


async def asked(call):
    """Await a call."""
    await call


async def streamed(stream):
    """Open a stream."""
    async with stream:
        pass


async def mapped(answers):
    """Raise the error of the first answer."""
    async for one in answers:
        raise one.error


CALLS = {
    "Prefix.ask": lambda session, options: asked(Prefix(session, model="m", messages=MESSAGES).ask("q", **options)),
    "Prefix.stream": lambda session, options: streamed(
        Prefix(session, model="m", messages=MESSAGES).stream("q", **options)
    ),
    "Prefix.map": lambda session, options: mapped(Prefix(session, model="m", messages=MESSAGES).map(["q"], **options)),
    "Conversation.ask": lambda session, options: asked(
        Conversation(session, model="m", messages=MESSAGES).ask("q", **options)
    ),
    "Conversation.stream": lambda session, options: streamed(
        Conversation(session, model="m", messages=MESSAGES).stream("q", **options)
    ),
}


def loaded(session, defaults):
    """Load a conversation from a text that is none."""
    Conversation.load(session, "{}", chat_defaults=dict(defaults))


MADE = {
    "Prefix": lambda session, defaults: Prefix(
        session, model="m", messages=MESSAGES, margin=-1, chat_defaults=dict(defaults)
    ),
    "Conversation": lambda session, defaults: Conversation(session, model="m", chat_defaults=dict(defaults)),
    "Conversation.load": loaded,
}


@pytest.mark.parametrize("make", MADE)
async def test_headers_of_defaults_in_tracebacks(session_for, make):
    """No frame of a constructor that failed shows the headers among the defaults."""
    defaults = Options(extra_headers={"Cookie": "id=QWERTZUIOP-asdfghjkl"})

    async def fail():
        MADE[make](session_for(), defaults)

    assert "QWERTZUIOP" not in everything(await failure(fail()))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fails", ["at the service", "before it is sent"])
async def test_headers_of_a_call_in_tracebacks(hostile, session_for, call, fails):
    """No frame of a managed call that failed shows the headers that were given with it."""
    hostile.plays([answer(CREATED)], *[[answer(b"{}", status="400 No")]] * 3)
    options = Options(extra_headers={"Cookie": "id=QWERTZUIOP-asdfghjkl"})
    if fails == "before it is sent":
        options["temperature"] = "hot"

    async def fail():
        await CALLS[call](session_for(), options)

    seen = everything(await failure(fail()))
    assert "QWERTZUIOP" not in seen
    assert len(hostile.posts) == (2 if fails == "at the service" else 0)
