"""The key never shows: not in an error, a traceback, a pickle or a log line."""

import gc
import pickle
from types import FunctionType, ModuleType, SimpleNamespace

import pytest

from ctxcache import (
    CtxCacheError,
    Timeouts,
)
from ctxcache.config import Secret

from ..hostile import (
    CHAT,
    CLOSE,
    COMPLETION,
    RESET,
    SSE,
    STALL,
    STORY,
    answer,
    event,
    piece,
    streamed,
)
from .calling import everything, failure, read

KEY = b"Bearer %KEY%"


ECHOES = {
    "message": [answer({"error": {"message": "you sent Bearer %KEY%"}}, status="401 No")],
    "fields": [
        answer({"error": {"code": "%KEY%", "type": "%KEY%", "param": "%KEY%", "x": ["%KEY%"]}}, status="400 No")
    ],
    "text": [answer(KEY, status="500 No", kind="text/plain")],
    "html": [answer(b"<pre>" + KEY, status="403 No", kind="text/html")],
    "good status": [answer({"error": {"message": "%KEY%"}})],
    "not json": [answer(KEY)],
    "not a completion": [answer({"choices": "%KEY%"})],
    "odd number": [answer({**COMPLETION, "created": "%KEY%"})],
    "odd choices": [answer({"choices": [{"index": "%KEY%", "message": "%KEY%"}]})],
    "request id": [answer({"error": {"message": "Request id: %KEY%"}}, "X-Request-Id: %KEY%", status="400 No")],
    "log id": [answer({"error": {}}, "X-Tt-Logid: %KEY%", status="400 No")],
    "status line": [b"HTTP/1.1 " + KEY + b"\r\n\r\n", CLOSE],
    "reason": [b"HTTP/1.1 400 " + KEY + b"\r\nContent-Length: 0\r\n\r\n"],
    "garbage": [KEY + b"\r\n\r\n", CLOSE],
    "header": [b"HTTP/1.1 200 OK\r\n" + KEY + b"\r\n\r\n", CLOSE],
    "length": [b"HTTP/1.1 200 OK\r\nContent-Length: " + KEY + b"\r\n\r\n", CLOSE],
    "long line": [b"HTTP/1.1 200 OK\r\nX: " + KEY * 9000 + b"\r\n\r\n", CLOSE],
    "type": [answer(b"x", kind="%KEY%")],
    "redirect": [answer(b"", "Location: http://%KEY%/", status="302 Found")],
    "encoding": [answer(KEY, "Content-Encoding: gzip")],
    "chunk": [SSE, piece(STORY[0]), KEY + b"\r\n", CLOSE],
    "error event": [streamed(STORY[0], event({"error": {"message": "%KEY%", "code": "%KEY%"}}))],
    "named event": [streamed(STORY[0], event(KEY, "event: error"))],
    "event": [streamed(STORY[0], event(KEY))],
    "odd event": [streamed(STORY[0], event({"choices": [{"index": "%KEY%"}]}))],
    "html stream": [answer(KEY, kind="text/html")],
}


ECHOES |= {f"cut {at}": [answer(b"x" * at + KEY, status="400 No")] for at in (470, 475, 480)}


ECHOES |= {f"cut {at}": [answer(b"x" * at + KEY)] for at in (1970, 1975, 1980)}


ECHOES |= {f"cut event {at}": [streamed(event(b"x" * at + KEY))] for at in (1970, 1980)}


@pytest.mark.parametrize("name", ECHOES)
@pytest.mark.parametrize("stream", [False, True])
async def test_echoed_key(hostile, session, key, caplog, name, stream):
    """A server that echoes the key cannot make it show: not in an error, its data, chain, traceback, pickle or log."""
    caplog.set_level("DEBUG")
    hostile.plays(*[[s.replace(b"%KEY%", key.encode()) if isinstance(s, bytes) else s for s in ECHOES[name]]] * 3)
    error = await failure(read(session.chat.stream(**CHAT)) if stream else session.chat.create(**CHAT))
    assert isinstance(error, CtxCacheError)
    seen = everything(error) + caplog.text
    for start in range(len(key) - 11):  # nor half of it
        assert key[start : start + 12] not in seen


def parts(session):
    """Everything of this package and aiohttp that a session holds, and the attributes of each."""
    found, waiting = {}, [session]
    while waiting:
        thing = waiting.pop()
        if id(thing) not in found and type(thing).__module__.partition(".")[0] in ("ctxcache", "aiohttp", "builtins"):
            found[id(thing)] = thing
            if not isinstance(thing, type | FunctionType | ModuleType | Secret):
                waiting += gc.get_referents(thing)
    yield from (thing for thing in found.values() if not isinstance(thing, str))
    yield from (vars(thing) for thing in found.values() if hasattr(thing, "__dict__"))


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
    assert key not in "".join(map(repr, parts(session)))


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
