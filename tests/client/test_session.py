"""Sessions: one loop, settings from arguments and environment, each bad argument named, and closing."""

import asyncio
import gc
import re
import subprocess
import sys
import traceback
import warnings

import aiohttp
import pytest

from ctxcache import (
    AsyncSession,
    Conversation,
    CtxCacheError,
    InvalidInputError,
    Limits,
    Prefix,
    Retry,
    SessionError,
    Timeouts,
    user,
)
from ctxcache.gateway import Gateway

from ..hostile import CHAT, CLOSE, CREATE, SSE, STALL, STORY, Hostile, answer, piece

HELLO = [user("Hello")]


# --- settings ---------------------------------------------------------------------------------------------------------


async def test_environment(hostile, monkeypatch):
    """Key and base URL fall back to `CTXCACHE_API_KEY` and `CTXCACHE_BASE_URL`."""
    monkeypatch.setenv("CTXCACHE_API_KEY", " from-environment ")
    monkeypatch.setenv("CTXCACHE_BASE_URL", hostile.url + "/")
    hostile.plays([answer()])
    async with AsyncSession() as session:
        await session.chat.create(**CHAT)
    assert hostile.posts[0].headers["authorization"] == "Bearer from-environment"
    assert hostile.posts[0].target == "/v1/context/chat/completions"


def test_arguments_win(monkeypatch):
    """Arguments win over the environment."""
    monkeypatch.setenv("CTXCACHE_API_KEY", "other")
    monkeypatch.setenv("CTXCACHE_BASE_URL", "http://other/v1")
    session = AsyncSession("mine", "http://mine/v1")
    assert session.base_url == "http://mine/v1"
    monkeypatch.delenv("CTXCACHE_API_KEY")
    assert session.fingerprint(b"x") == AsyncSession("mine", "http://mine/v1").fingerprint(b"x")
    assert session.fingerprint(b"x") != AsyncSession("other", "http://mine/v1").fingerprint(b"x")


def test_default_gateway(monkeypatch):
    """Without anything the base URL is that of the first gateway."""
    monkeypatch.setenv("CTXCACHE_BASE_URL", "")
    assert AsyncSession("k").base_url == "https://gateway.serevixai.ai/v1"


@pytest.mark.parametrize("url", ["http://h/v1", "http://h/v1/", "http://h/v1//", " http://h/v1 "])
def test_trailing_slashes(url):
    """A base URL may end in slashes."""
    assert AsyncSession("k", url).base_url == "http://h/v1"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"api_key": ""}, "api_key"),
        ({"api_key": "  "}, "api_key"),
        ({"api_key": "sk-secret\r\nX: y"}, "api_key"),
        ({"api_key": "sk-secret\x00"}, "api_key"),
        ({"api_key": b"sk-secret"}, "api_key"),
        ({"api_key": 7}, "api_key"),
        ({"base_url": "gateway.example/v1"}, "base_url"),
        ({"base_url": "ftp://x/v1"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http:///v1"}, "base_url"),
        ({"base_url": "http://x:99999/v1"}, "base_url"),
        ({"base_url": "http://x:0/v1"}, "base_url"),
        ({"base_url": "http://x:port/v1"}, "base_url"),
        ({"base_url": "http://[::1/v1"}, "base_url"),
        ({"base_url": "http://me:sk-secret@x/v1"}, "base_url"),
        ({"base_url": "http://sk-secret@x/v1"}, "base_url"),
        ({"base_url": "http://x/v1?key=1"}, "base_url"),
        ({"base_url": "http://x/v1#top"}, "base_url"),
        ({"base_url": "http://x/v1#"}, "base_url"),
        ({"base_url": "http://x/v1?"}, "base_url"),
        ({"base_url": "https://api.example.com/v1?#"}, "base_url"),
        ({"base_url": 7}, "base_url"),
        ({"base_url": "https://x/v1/context/create"}, "base_url"),
        ({"base_url": "https://x/v1/context/chat/completions/"}, "base_url"),
        ({"base_url": "https://x/v1/chat/completions"}, "base_url"),
        *[
            ({"base_url": f"http://{host}/v1"}, "base_url")
            for host in ("api.example.com", "api.example.com:8080", "8.8.8.8", "[2001:4860:4860::8888]", "134744072")
        ],
        ({"allow_insecure": "yes"}, "allow_insecure"),
        ({"allow_insecure": None}, "allow_insecure"),
        ({"timeouts": "30"}, "timeouts"),
        ({"timeouts": True}, "timeouts"),
        ({"timeouts": -1}, "Timeouts.total"),
        ({"limits": 100}, "limits"),
        ({"retry": -1}, "retry"),
        ({"headers": "X: y"}, "headers"),
        ({"headers": {"X": 7}}, "headers['X']"),
        ({"headers": {"X": "a\ud800"}}, "headers['X']"),
        ({"headers": {"X": "sk-secret\n"}}, "headers['X']"),
        ({"headers": {"X Y": "z"}}, "headers"),
        ({"headers": {"": "z"}}, "headers"),
        ({"headers": {7: "z"}}, "headers"),
        ({"headers": {"content-LENGTH": "7"}}, "headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "headers"),
        ({"headers": {"Host": "x"}}, "headers"),
    ],
    ids=str,
)
def test_bad_settings(settings, field):
    """A setting that cannot work is a `ValueError` that names it; what may be a secret is not shown."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the text is looked at below
        AsyncSession(**{"api_key": "k", "base_url": "http://x/v1", **settings})
    assert isinstance(caught.value, InvalidInputError)
    assert caught.value.field == field
    assert str(caught.value).startswith(field.partition("[")[0])
    assert "sk-secret" not in f"{caught.value} {vars(caught.value)}"


@pytest.mark.parametrize(
    "host", "localhost:8080 127.0.0.1 [::1] 10.0.0.7 169.254.1.1 gateway a.local a.internal a.b.svc".split()
)
def test_unencrypted_to_a_private_host(log_lines, host):
    """Over plain http the key goes to hosts that are not public; the log says so at DEBUG."""
    session = AsyncSession("k", f"http://{host}/v1")
    assert session.base_url == f"http://{host}/v1"
    (line,) = log_lines("DEBUG")
    assert "unencrypted to a private host" in line


def test_unencrypted_to_a_public_host(log_lines):
    """And to public hosts where the caller allows it."""
    assert AsyncSession("k", "http://api.example.com/v1", allow_insecure=True).base_url == "http://api.example.com/v1"
    assert "unencrypted to a public host" in log_lines("DEBUG")[0]


def test_encrypted(log_lines):
    """An https URL needs no word."""
    AsyncSession("k", "https://api.example.com/v1", allow_insecure=False)
    assert log_lines("DEBUG") == []


def test_no_key():
    """Without a key anywhere the error says where one may come from."""
    with pytest.raises(InvalidInputError, match="CTXCACHE_API_KEY"):
        AsyncSession()


NO_SECONDS = [-1, -0.001, float("nan"), float("inf"), "5", True, [5]]


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *[(Timeouts, name, bad) for name in ("connect", "pool", "head", "idle", "total") for bad in [0, *NO_SECONDS]],
        *[(Limits, "keepalive", bad) for bad in [None, *NO_SECONDS]],
        *[(Retry, name, None) for name in ("first_delay", "max_delay", "max_elapsed", "max_retry_after")],
        *[(Retry, "first_delay", bad) for bad in NO_SECONDS],
        *[(Limits, "connections", bad) for bad in (-1, 1.5, None, True, "9")],
        *[
            (kind, name, 0)
            for kind, name in (
                (Retry, "attempts"),
                (Limits, "event_bytes"),
                (Limits, "body_bytes"),
                (Limits, "answer_bytes"),
            )
        ],
    ],
)
def test_bad_numbers(kind, field, value):
    """Settings check themselves when they are made, and name field and value."""
    with pytest.raises(InvalidInputError) as caught:
        kind(**{field: value})
    assert caught.value.field == f"{kind.__name__}.{field}"
    assert caught.value.value == repr(value)


def test_settings_are_values():
    """Settings are frozen values with the documented defaults."""
    assert Timeouts() == Timeouts(connect=10.0, pool=None, head=600.0, idle=120.0, total=None)
    assert Limits() == Limits(connections=1000, keepalive=30.0, event_bytes=16 * 2**20, body_bytes=64 * 2**20)
    assert Retry() == Retry(attempts=3, first_delay=0.5, max_delay=8.0, max_elapsed=120.0, max_retry_after=60.0)
    assert hash(Timeouts(total=5)) == hash(Timeouts(total=5))
    with pytest.raises(AttributeError):
        Timeouts().total = 5


# --- loops and closing ------------------------------------------------------------------------------------------------


async def test_closed(hostile, session):
    """After `aclose()` every use is a `SessionError`; closing again does nothing."""
    hostile.plays([answer()])
    await session.chat.create(**CHAT)
    assert not session.closed
    await session.aclose()
    await session.aclose()
    assert session.closed
    for call in (session.chat.create(**CHAT), session.context.create(**CREATE), session.chat.stream(**CHAT).open()):
        with pytest.raises(SessionError, match="closed"):
            await call
    with pytest.raises(SessionError, match="closed"):
        async with session:
            pass
    await hostile.until(lambda: not hostile.open)


async def test_closed_unused(session_for):
    """A session that was never used closes as well."""
    session = session_for()
    await session.aclose()
    with pytest.raises(SessionError, match="closed"):
        await session.chat.create(**CHAT)


async def test_context_manager(hostile, key):
    """`async with` closes the session, also after an exception."""
    with pytest.raises(KeyError):
        async with AsyncSession(key, hostile.url) as session:
            raise KeyError
    assert session.closed
    assert repr(session) == f"<AsyncSession {hostile.url} closed>"


def test_another_loop(key):
    """A session used in a second event loop says so, and closes without harm there."""

    async def first():
        async with Hostile() as hostile:
            hostile.plays([answer()], [SSE, piece(STORY[0]), STALL])
            session = AsyncSession(key, hostile.url)
            await session.chat.create(**CHAT)
            stream = session.chat.stream(**CHAT)
            await anext(stream)
            return session, stream

    async def second(session, stream):
        with pytest.raises(SessionError, match="event loop"):
            await session.chat.create(**CHAT)
        with pytest.raises(SessionError, match="event loop"):
            async with session:
                pass
        with pytest.raises(CtxCacheError):
            await anext(stream)
        with pytest.raises(SessionError, match="event loop"):
            await session.aclose()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a loop that ends under open connections complains, and so do we
        session, stream = asyncio.run(first())
        asyncio.run(second(session, stream))
        del session, stream
        gc.collect()


def test_forgotten_after_its_loop(key):
    """A stream that is forgotten when its event loop is closed has nothing to be closed in, and is no error."""

    async def left_open():
        async with Hostile() as hostile, aiohttp.ClientSession() as http:
            hostile.plays([SSE, piece(STORY[0]), STALL])
            session = AsyncSession(key, hostile.url, http=http)
            return session, await session.chat.stream(**CHAT, serialize=True).open()

    session, stream = asyncio.run(left_open())
    del stream
    gc.collect()  # what goes wrong in it is an error of this test
    assert session.holdings()["exchanges"] == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the session was never closed, and says so
        del session
        gc.collect()


def test_a_session_in_each_loop(key):
    """A session can be made before its loop; each loop's session works."""

    async def use(session, hostile):
        hostile.plays([answer()])
        async with session:
            return (await session.chat.create(**CHAT)).text

    async def main():
        async with Hostile() as hostile:
            return await use(AsyncSession(key, hostile.url), hostile)

    assert [asyncio.run(main()) for _ in range(2)] == ["Hi", "Hi"]


async def test_resource_warning(hostile, key):
    """A session that was used and not closed is a `ResourceWarning` when collected, and closes its connections."""
    hostile.plays([answer()])
    session = AsyncSession(key, hostile.url)
    await session.chat.create(**CHAT)
    (http,) = (found for found in gc.get_objects() if isinstance(found, aiohttp.ClientSession) and not found.closed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert "never closed" in str(caught[0].message)
    assert key not in "".join(str(warning.message) for warning in caught)
    assert http.closed
    await hostile.until(lambda: hostile.connections[0].gone)


FORGETFUL = """
import asyncio, gc
from ctxcache import AsyncSession, system, user
from ctxcache.gateway import Gateway
kept = []
async def main(keep):
    async with Gateway() as gateway:
        session = AsyncSession(gateway.api_key, gateway.base_url)
        session.itself = session if keep is None else None
        context = await session.context.create(model="Doubao-1.5-pro-32k", messages=[system("a")])
        stream = session.chat.stream(context_id=context.id, model="Doubao-1.5-pro-32k", messages=[user("a")])
        async for chunk in stream:
            break
        if keep:
            kept.append(session)
for keep in (False, True, None):
    asyncio.run(main(keep))
    gc.collect()
"""


@pytest.mark.parametrize("options", [["-W", "always"], ["-W", "ignore"], ["-X", "dev"]])
def test_only_this_package_tells_of_a_forgotten_session(options):
    """However a session is forgotten, in a cycle or until the end, aiohttp neither warns nor logs."""
    done = subprocess.run([sys.executable, *options, "-c", FORGETFUL], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("was never closed") == (0 if "ignore" in options else 3)
    assert not re.search(r"[Uu]nclosed|aiohttp|never awaited|Traceback", done.stderr), done.stderr


async def test_no_resource_warning(hostile, key):
    """A session that was closed, never used, or could not be made, is collected in silence."""
    hostile.plays([answer()])
    async with AsyncSession(key, hostile.url) as session:
        await session.chat.create(**CHAT)
    unused = AsyncSession(key, hostile.url)
    with pytest.raises(InvalidInputError):
        AsyncSession("")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del session, unused
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("kind", [AsyncSession, Conversation, Gateway, Prefix])
def test_a_constructor_that_fails_makes_no_noise(kind, capsys):
    """A wrong keyword is a `TypeError` and nothing else: half an object has a repr, and is collected in silence."""
    with pytest.raises(TypeError) as caught:
        kind("k", no_such_argument=5)
    traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    half = kind.__new__(kind)
    assert kind.__name__ in repr(half)
    del caught, half
    gc.collect()
    assert capsys.readouterr().err == ""


async def test_many_tasks(hostile, session):
    """Any number of tasks may use one session at once."""
    hostile.plays(*[[answer()]] * 100)
    replies = await asyncio.gather(*[session.chat.create(**CHAT) for _ in range(100)])
    assert {reply.text for reply in replies} == {"Hi"}
    assert len(hostile.posts) == 100


async def test_close_while_cancelled(hostile, session):
    """A call that is cancelled by its caller and by `aclose()` in the same moment stays cancelled."""
    hostile.plays([STALL])
    call = asyncio.ensure_future(session.chat.create(**CHAT))
    await hostile.until(lambda: hostile.posts)
    call.cancel()
    await session.aclose()
    await asyncio.wait([call])
    assert call.cancelled()


async def test_close_under_a_time_limit_of_the_caller(hostile, session):
    """A call that `aclose()` ends inside the caller's own `asyncio.timeout` is no time-out, and cancels nobody."""
    hostile.plays([STALL])

    async def caller():
        async with asyncio.timeout(5), asyncio.TaskGroup():
            with pytest.raises(CtxCacheError):
                await session.chat.create(**CHAT)
            await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    call = asyncio.ensure_future(caller())
    await hostile.until(lambda: hostile.posts)
    await session.aclose()
    assert await call == 0


async def test_lazy_import():
    """Importing the package does not import aiohttp."""
    code = "import ctxcache, sys; print([m for m in ('aiohttp', 'cattrs', 'rich') if m in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.strip() == b"[]"


async def test_close_with_a_lost_connection(hostile, session):
    """Closing a session whose connections are all gone already is fine."""
    hostile.plays([answer(), CLOSE])
    await session.chat.create(**CHAT)
    await hostile.until(lambda: not hostile.open)
    await session.aclose()
