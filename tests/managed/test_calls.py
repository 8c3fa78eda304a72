"""The calls of a `Prefix` and a `Conversation`: the same parameters, defaults of their own."""

import contextlib
import inspect

import pytest

from ctxcache import UNSET, Conversation, InvalidInputError, OutcomeUnknownError, Prefix, Retry, system
from ctxcache.client.resources.parameters import ChatParameters

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


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_defaults_of_streams(hostile, session_for, kind):
    """`stream_options` are the default of streams, and are not sent with plain calls."""
    hostile.plays(made(), says("a"), *[[streamed(chunk("b", "stop"))]] * 3)
    managed = kind(session_for(), **START, chat_defaults={"stream_options": {"include_usage": False}})
    await managed.ask("?")
    for options in ({}, {"stream_options": {}}, {"stream_options": UNSET}):
        async for _ in managed.stream("?", **options):
            pass
    asked = [post.json.get("stream_options") for post in hostile.posts[1:]]
    assert asked == [None, {"include_usage": False}, {}, None]


@pytest.mark.parametrize(("default", "posts"), [(None, 3), (True, 3), (False, 2)])
@pytest.mark.parametrize("in_map", [False, True])
async def test_a_default_makes_calls_over_a_prefix_unrepeatable(hostile, session_for, default, posts, in_map):
    """`repeatable` is True by default, and what `chat_defaults` say otherwise counts, in `map`, too."""
    hostile.plays(made(), [CLOSE], says("a"))
    defaults = {"repeatable": default, "retry": Retry(first_delay=0)}
    manual = Prefix(session_for(), **START, chat_defaults=defaults)
    if in_map:
        [_] = [answer async for answer in manual.map(["?"])]
    elif posts == 2:
        with pytest.raises(OutcomeUnknownError):
            await manual.ask("?")
    else:
        await manual.ask("?")
    assert len(hostile.posts) == posts


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_session_defaults_of_streams(hostile, session_for, kind):
    """`stream_options` among the session's defaults count as much as those of the object."""
    hostile.plays(made(), says("a"), *[[streamed(chunk("b", "stop"))]] * 2)
    managed = kind(session_for(chat_defaults={"stream_options": {"include_usage": False}}), **START)
    await managed.ask("?")
    for options in ({}, {"stream_options": UNSET}):
        await managed.stream("?", **options).finish()
    asked = [post.json.get("stream_options") for post in hostile.posts[1:]]
    assert asked == [None, {"include_usage": False}, None]


@pytest.mark.parametrize(
    ("of_session", "own", "given", "posts"),
    [
        (False, None, None, 2),
        (False, True, None, 3),
        (False, UNSET, None, 3),
        (False, None, UNSET, 3),
        (None, False, UNSET, 3),
        (None, None, False, 2),
        (False, None, True, 3),
    ],
)
async def test_whether_a_call_over_a_prefix_is_repeatable(hostile, session_for, of_session, own, given, posts):
    """The call decides, then the defaults of the prefix, then those of the session; else the call is repeatable."""
    hostile.plays(made(), [CLOSE], says("a"))
    session = session_for(chat_defaults={"repeatable": of_session}, retry=Retry(first_delay=0))
    manual = Prefix(session, **START, chat_defaults={"repeatable": own})
    with contextlib.nullcontext() if posts == 3 else pytest.raises(OutcomeUnknownError):
        await manual.ask("?", repeatable=given)
    assert len(hostile.posts) == posts


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_no_default_is_none(hostile, session_for, kind):
    """None means not given, in `chat_defaults` as in a call: the session's default counts."""
    hostile.plays(made(), says("a"))
    session = session_for(chat_defaults={"temperature": 0.5})
    await kind(session, **START, chat_defaults={"temperature": None, "stream_options": None}).ask("?")
    assert hostile.posts[1].json["temperature"] == 0.5


@pytest.mark.parametrize("none", [None, UNSET])
@pytest.mark.parametrize("call", [Prefix.ask, Prefix.stream, Prefix.map, Conversation.ask, Conversation.stream])
async def test_parameters_that_are_not_given(hostile, session_for, call, none):
    """None and `UNSET` mean "not given" for every optional parameter of a chat: the body is that of a bare call."""
    kind = Prefix if call.__qualname__.startswith("Prefix") else Conversation
    hostile.plays(made(), *[[streamed()] if call.__name__ == "stream" else says("a")] * 2)
    managed = kind(session_for(), **START)
    for options in ({"stream_options": none}, dict.fromkeys(ChatParameters.__annotations__, none)):
        found = call(managed, ["?"] if call.__name__ == "map" else "?", **options)
        if inspect.isawaitable(found):
            await found
        else:
            async for _ in found:
                pass
    _, bare, full = hostile.posts
    assert full.json == bare.json


class Seconds:
    """A number, as of another library, that counts how often it is read."""

    reads = 0

    def __index__(self) -> int:
        self.reads += 1
        return 20


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_time_limits_are_read_once(hostile, session_for, kind):
    """A call reads the number of seconds once, for all parts of the call."""
    hostile.plays(made(), says("a"), [streamed()])
    managed = kind(session_for(), **START)
    asked, read = Seconds(), Seconds()
    await managed.ask("?", timeouts=asked)
    await managed.stream("?", timeouts=read).finish()
    assert (asked.reads, read.reads) == (1, 1)


async def test_a_map_of_nothing_given(hostile, session_for):
    """None means "not given" for the parameters of the map itself, too."""
    hostile.plays(made(), says("a"))
    manual = Prefix(session_for(), **START)
    assert [answer.text async for answer in manual.map(["?"], concurrency=None, ordered=None)] == ["a"]


@pytest.mark.parametrize(
    ("kind", "defaults", "error", "says"),
    [
        (Prefix, {"temprature": 1}, TypeError, "did you mean 'temperature'"),
        (Conversation, {"max_completion_tokens": 1}, TypeError, "did you mean 'max_tokens'"),
        (Prefix, {"model": "x"}, TypeError, "model"),
        (Prefix, {"temperature": 9}, InvalidInputError, "temperature"),
        (Prefix, {"stream_options": 5}, InvalidInputError, "stream_options"),
        (Prefix, {"extra_body": {"model": "x"}}, InvalidInputError, r"extra_body\['model'\]"),
        (Conversation, {"extra_body": {"messages": []}}, InvalidInputError, r"extra_body\['messages'\]"),
        (Conversation, {"n": 2}, InvalidInputError, "n must be 1"),
        (Conversation, {"extra_body": {"n": 2}}, InvalidInputError, "n must be 1"),
        (Conversation, {"repeatable": True}, InvalidInputError, "repeatable"),
        (Conversation, {"serialize": False}, InvalidInputError, "serialize"),
        (Prefix, [("temperature", 1)], InvalidInputError, "chat_defaults"),
        (Conversation, "temperature", InvalidInputError, "chat_defaults"),
    ],
)
def test_refused_defaults(session_for, kind, defaults, error, says):
    """A default that no call could have is refused when the object is made, by name."""
    with pytest.raises(error, match=says):
        kind(session_for(), **START, chat_defaults=defaults)


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


@pytest.mark.parametrize("kind", [Prefix, Conversation])
async def test_the_session_of_the_calls(session, kind):
    """The session that makes the calls can be asked for: the given one, or one of its options with the defaults."""
    assert kind(session, **START).session is session
    with_defaults = kind(session, **START, chat_defaults={"top_p": 0.5})
    assert with_defaults.session is not session
    async with session:
        assert with_defaults.session.loop is session.loop
