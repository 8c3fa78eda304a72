"""The key never shows: not in an error, a traceback, a pickle or a log line."""

import pickle
from types import SimpleNamespace

import pytest

from ctxcache import (
    AsyncSession,
    CtxCacheError,
    InvalidInputError,
    Timeouts,
)
from ctxcache.config import Secret

from ..hostile import (
    CHAT,
    CLOSE,
    CREATE,
    RESET,
    SSE,
    STALL,
    STORY,
    answer,
    chunk,
    event,
    piece,
    streamed,
)
from .calling import everything, failure, reachable, read


def echoes(key):
    """Answers that echo the key, by name, each framed for a key of this length."""
    bearer = f"Bearer {key}".encode()
    return {
        "message": [answer({"error": {"message": f"you sent Bearer {key}"}}, status="401 No")],
        "fields": [answer({"error": {"code": key, "type": key, "param": key, "x": [key]}}, status="400 No")],
        "names": [answer({"error": {key: {key: [key]}}}, status="400 No")],
        "text": [answer(bearer, status="500 No", kind="text/plain")],
        "html": [answer(b"<pre>" + bearer, status="403 No", kind="text/html")],
        "good status": [answer({"error": {"message": key}})],
        "not json": [answer(bearer)],
        "not a completion": [answer({"choices": key})],
        "odd choices": [answer({"choices": [{"index": key, "message": key}]})],
        "request id": [answer({"error": {"message": f"Request id: {key}"}}, f"X-Request-Id: {key}", status="400 No")],
        "log id": [answer({"error": {}}, f"X-Tt-Logid: {key}", status="400 No")],
        "status line": [b"HTTP/1.1 " + bearer + b"\r\n\r\n", CLOSE],
        "reason": [b"HTTP/1.1 400 " + bearer + b"\r\nContent-Length: 0\r\n\r\n"],
        "garbage": [bearer + b"\r\n\r\n", CLOSE],
        "header": [b"HTTP/1.1 200 OK\r\n" + bearer + b"\r\n\r\n", CLOSE],
        "length": [b"HTTP/1.1 200 OK\r\nContent-Length: " + bearer + b"\r\n\r\n", CLOSE],
        "long line": [b"HTTP/1.1 200 OK\r\nX: " + bearer * 9000 + b"\r\n\r\n", CLOSE],
        "type": [answer(b"x", kind=key)],
        "json type": [answer(bearer, kind="text/html")],
        "redirect": [answer(b"", f"Location: http://{key}/", status="302 Found")],
        "encoding": [answer(bearer, "Content-Encoding: gzip")],
        "chunk": [SSE, piece(STORY[0]), bearer + b"\r\n", CLOSE],
        "error event": [streamed(STORY[0], event({"error": {"message": key, "code": key}}))],
        "named event": [streamed(STORY[0], event(bearer, "event: error"))],
        "event": [streamed(STORY[0], event(b"{" + bearer))],
        "odd event": [streamed(STORY[0], event({"choices": [{"index": key}]}))],
        "partial": [streamed(chunk("you sent "), chunk(key[:9]), chunk(key[9:]))],
        "partial tool call": [streamed(event({"choices": [{"delta": {"tool_calls": [{"id": key}]}}]}))],
        "partial, cut": [streamed(chunk("you sent "), chunk(key[:20]))],
    }


async def drain(stream):
    """Read a stream to its end; no chunk is in a local variable of this frame."""
    while await anext(stream, None) is not None:
        pass


async def looked_at(hostile, session, key, script, *, stream):
    """Play a script three times; return all that can be seen of the error the call ends with."""
    hostile.plays(*[script] * 3)
    error = await failure(drain(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT))
    assert isinstance(error, CtxCacheError)
    hostile.scripts.clear()
    return error, everything(error)


def shows(key, seen):
    """The parts of the key that are seen."""
    return [key[start : start + 9] for start in range(len(key) - 8) if key[start : start + 9] in seen]


@pytest.mark.parametrize("name", echoes("sk-of-no-server"))
@pytest.mark.parametrize("stream", [False, True])
async def test_echoed_key(hostile, session, key, caplog, name, stream):
    """A server that echoes the key cannot make it show: not in an error, its data, chain, traceback, pickle or log."""
    caplog.set_level("DEBUG")
    _, seen = await looked_at(hostile, session, key, echoes(key)[name], stream=stream)
    assert shows(key, seen + caplog.text) == []


AT = {
    "message": lambda before: [answer({"error": {"message": before.decode()}}, status="400 No")],
    "text": lambda before: [answer(before, status="400 No", kind="text/plain")],
    "not json": lambda before: [answer(before)],
    "escaped": lambda before: [answer(b'"' + before.replace(b"/", b"\\/") + b'"', status="400 No")],
    "html": lambda before: [answer(b"<p>" + before, kind="text/html")],
    "event": lambda before: [streamed(event(b"{" + before))],
    "error event": lambda before: [streamed(event({"error": {"message": before.decode()}}))],
    "header": lambda before: [b"HTTP/1.1 200 OK\r\n" + before + b"\r\n\r\n", CLOSE],
}


@pytest.mark.parametrize("kind", AT)
async def test_echoed_key_at_any_offset(hostile, session, key, kind):
    """Wherever the key is echoed, before or behind the place where a text is cut for display, no part of it shows."""
    for at in (*range(0, 130, 7), *range(460, 510), *range(1960, 2010)):
        script = AT[kind](b"x" * at + b" " + key.encode() + b" " * 3000)
        error, seen = await looked_at(hostile, session, key, script, stream="event" in kind)
        assert shows(key, seen) == [], (at, error)


async def test_what_is_not_the_key_is_kept(hostile, session, key):
    """Redaction leaves the rest of an error as it was."""
    hostile.plays([answer({"error": {"message": f"the key {key} is unknown", "code": "X", "n": [1]}}, status="401 No")])
    error = await failure(session.chat.create(**CHAT))
    assert error.message == "401 X: the key … is unknown"
    assert error.body == {"error": {"message": "the key … is unknown", "code": "X", "n": [1]}}


@pytest.mark.parametrize("header", ["Cookie", "X-Api-Token", "Proxy-Authorization"])
@pytest.mark.parametrize("whose", ["session", "call"])
async def test_echoed_headers(hostile, session_for, header, whose):
    """Headers of the session and of a call whose names tell that they are secret are redacted as the key is."""
    headers = {header: "id=QWERTZUIOP-asdfghjkl", "X-Team": "the-blue-team"}
    session = session_for(headers=headers if whose == "session" else {})
    hostile.plays([answer({"error": {"message": f"what is {headers}?"}}, status="400 No")])
    error = await failure(session.chat.create(**CHAT, extra_headers=headers if whose == "call" else {}))
    assert shows("id=QWERTZUIOP-asdfghjkl", f"{error} {vars(error)}") == []
    assert "the-blue-team" in error.message


@pytest.mark.parametrize("how", ["create", "stream", "streamed", "context"])
async def test_headers_of_a_call_in_tracebacks(hostile, session, how):
    """No frame of a call that failed shows the headers that were given with it."""
    hostile.plays(*[[answer(b"{}", status="400 No")]] * 3)
    headers = {"Cookie": "id=QWERTZUIOP-asdfghjkl"}
    calls = {
        "create": lambda: session.chat.create(**CHAT, extra_headers=headers),
        "stream": lambda: session.chat.stream(**CHAT, extra_headers=headers).open(),
        "streamed": lambda: session.chat.create(**CHAT, extra_headers=headers, stream=True),
        "context": lambda: session.context.create(**CREATE, extra_headers=headers),
    }
    seen = everything(await failure(calls[how]()))
    assert "client/calls.py" in seen
    assert "QWERTZUIOP" not in seen
    assert hostile.posts[0].headers["cookie"] == headers["Cookie"]


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "sk-0123456789abcdef\nsk-"},
        {"api_key": "sk-0123456789abcdef", "timeouts": "5"},
        {"api_key": "sk-0123456789abcdef", "base_url": "ftp://h"},
        {"api_key": "k", "base_url": "http://me:sk-0123456789abcdef@h/v1"},
        {"api_key": "k", "headers": {"X": "sk-0123456789abcdef\nsk-"}},
        {"api_key": "k", "chat_defaults": {"extra_headers": {"X": "sk-0123456789abcdef"}, "temperature": 9}},
        {"api_key": "k", "headers": {"Cookie": "sk-0123456789abcdef", "X Y": "z"}},
    ],
    ids=str,
)
def test_a_constructor_that_fails_shows_nothing(settings):
    """No frame of the constructor shows the key, a header or a password in its local variables; its repr works."""

    def make():
        settings_of_the_caller = settings.copy()
        try:
            AsyncSession(**settings_of_the_caller)
        except InvalidInputError as error:
            return error.with_traceback(error.__traceback__.tb_next)  # without this frame, which holds all of it

    shown = everything(make())
    assert "sk-0123456789abcdef" not in shown
    assert "self = <AsyncSession " in shown


async def test_forged_log_lines(hostile, session, log_lines):
    """Line ends and control characters in a server's ids are escaped in the log."""
    hostile.plays([answer({"error": {"message": "no"}}, "X-Request-Id: a\x1b[31mb\tc\x85d", status="400 No")])
    await failure(session.chat.create(**CHAT))
    (line,) = log_lines("DEBUG")
    assert r"request_id=a\x1b[31mb\tc" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    "script", [[CLOSE], [RESET], [STALL], [b"garbage\r\n\r\n", CLOSE], [answer(b"{}", status="400 No")], [SSE, CLOSE]]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_key_in_tracebacks(hostile, session_for, key, caplog, script, stream):
    """No error's traceback shows the key, though local variables be shown."""
    caplog.set_level("DEBUG")
    hostile.plays(script)
    session = session_for(timeouts=Timeouts(head=0.05))
    error = await failure(read(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT))
    assert key not in everything(error) + caplog.text
    assert key not in "".join(map(repr, reachable(session)))


async def test_key_of_a_refused_connection(session_for, key):
    """Nor does that of a connection that could not be made."""
    error = await failure(session_for(SimpleNamespace(url="http://nowhere.invalid/v1")).chat.create(**CHAT))
    assert key not in everything(error)


async def test_sessions_and_streams_do_not_pickle_the_key(hostile, session, key):
    """A session does not pickle, since its key would travel; neither does a stream."""
    for thing in (session, session.chat, session.chat.stream(**CHAT), Secret(key)):
        with pytest.raises(Exception, match=r"pickle|cannot") as caught:
            pickle.dumps(thing)
        assert key not in str(caught.value)
