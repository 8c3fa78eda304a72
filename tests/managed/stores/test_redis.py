"""The store in a Redis or Valkey server."""

import asyncio
import gc
import pickle
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing
from typing import Any

import pytest
import redis

from ctxcache import InvalidInputError, SessionError
from ctxcache.managed.stores import RedisStore

from ..redis_server import BINARY, NO_BINARY, redis_server

PASSWORD = "s3cret/with#special?@signs"
ENCODED = "s3cret%2Fwith%23special%3F%40signs"


@pytest.fixture
def servers() -> Iterator[ExitStack]:
    """Servers of this test's own; they end with it."""
    if BINARY is None:
        pytest.skip(NO_BINARY)
    with ExitStack() as stack:
        yield stack


@pytest.fixture
async def own_url(servers: ExitStack) -> str:
    """A server of this test's own."""
    return servers.enter_context(redis_server())


@pytest.fixture
async def store(own_url: str, quiet_loop: None) -> AsyncIterator[RedisStore]:
    """A store on that server."""
    async with aclosing(RedisStore(own_url)) as store:
        yield store


def look(url: str) -> redis.Redis:
    """Another client, to look at what the server has."""
    return redis.Redis.from_url(url, decode_responses=True)


async def test_what_is_kept_is_an_id_and_times(own_url: str, store: RedisStore) -> None:
    """Under the prefix, and every key has an end."""
    await store.put("k", "ctx-1", 3600, 60)
    await store.lease("k", "me", 30)
    with look(own_url) as client:
        assert sorted(client.keys()) == ["ctxcache:k", "ctxcache:k:lease"]
        assert client.hgetall("ctxcache:k") == {"id": "ctx-1", "ttl": "3600.0"}
        assert client.get("ctxcache:k:lease") == "me"
        assert 0 < client.pttl("ctxcache:k") <= 60_000
        assert 0 < client.pttl("ctxcache:k:lease") <= 30_000


async def test_every_note_keeps_an_end(own_url: str, store: RedisStore) -> None:
    """So that the server never fills with what nobody asks for."""
    await store.put("k", "ctx-1", 3600, 60)
    await store.touch("k", "ctx-1", 3600)
    await store.put("k", "ctx-2", 3600, 60)
    for _ in range(2):
        await store.lease("k", "me", 30)
    with look(own_url) as client:
        assert [client.pttl(key) > 0 for key in client.scan_iter()] == [True, True]


@pytest.mark.parametrize("command", [("LPUSH", "x"), ("SADD", "x"), ("SET", "x"), ("HSET", "id", "x")], ids=" ".join)
async def test_a_key_of_another_type_heals(own_url: str, store: RedisStore, command: tuple[str, ...]) -> None:
    """Whatever put it there: nothing is found, nothing is raised, and a put or a lease takes its place."""
    name, *values = command
    with look(own_url) as client:
        for key in ("ctxcache:k", "ctxcache:k:lease"):
            client.execute_command(name, key, *values)
    assert await store.get("k") is None
    await store.touch("k", "ctx-1", 60)
    await store.forget("k", "ctx-1")
    await store.release("k", "me")
    assert await store.lease("k", "me", 30)
    assert not await store.lease("k", "you", 30)
    await store.put("k", "ctx-1", 60, 60)
    found = await store.get("k")
    assert found is not None
    assert found.id == "ctx-1"


@pytest.mark.parametrize(
    "fields", [{"ttl": "soon"}, {"ttl": "inf"}, {"ttl": "-1"}, {"id": b"\xff"}, {"id": ""}], ids=str
)
async def test_a_damaged_entry_is_none(own_url: str, store: RedisStore, fields: dict[str, Any]) -> None:
    """A field that no store wrote makes no context."""
    await store.put("k", "ctx-1", 60, 60)
    with look(own_url) as client:
        client.hset("ctxcache:k", mapping=fields)
    assert await store.get("k") is None


@pytest.mark.parametrize("milliseconds", [None, 10**9])
async def test_a_pause_with_an_absurd_end_is_over(own_url: str, store: RedisStore, milliseconds: int | None) -> None:
    """One without an end, or with one so far off that nobody asked for it, pauses nobody."""
    with look(own_url) as client:
        client.set("ctxcache:k:pause", "", px=milliseconds)
    assert await store.paused("k") == 0
    await store.pause("k", 30)
    assert 20 < await store.paused("k") <= 30


async def test_a_pause_of_another_type_is_none(own_url: str, store: RedisStore) -> None:
    """What no store wrote pauses nobody, and gives way to a pause."""
    with look(own_url) as client:
        client.hset("ctxcache:k:pause", "a", "b")
        client.pexpire("ctxcache:k:pause", 60_000)
    assert await store.paused("k") == 0
    await store.pause("k", 30)
    assert 20 < await store.paused("k") <= 30


@pytest.mark.parametrize("milliseconds", [None, 10**9])
async def test_a_lease_with_an_absurd_end_is_over(own_url: str, store: RedisStore, milliseconds: int | None) -> None:
    """One without an end, or with one so far off that nobody asked for it, delays nobody."""
    with look(own_url) as client:
        client.set("ctxcache:k:lease", "a holder", px=milliseconds)
    assert await store.lease("k", "me", 30)
    assert not await store.lease("k", "a holder", 30)


async def test_prefixes_are_apart(own_url: str, quiet_loop: None) -> None:
    """Two applications share one server."""
    async with aclosing(RedisStore(own_url, prefix="a:")) as one, aclosing(RedisStore(own_url, prefix="b:")) as two:
        await one.put("k", "ctx-1", 60, 60)
        assert await two.get("k") is None


async def test_connections_are_few_and_closed(own_url: str, store: RedisStore) -> None:
    """Four at most however much is asked at once; none after `aclose`."""
    await asyncio.gather(*(store.get(f"k{number}") for number in range(100)))
    with look(own_url) as client:
        assert 1 <= len(client.client_list()) - 1 <= 4
        tasks = [asyncio.ensure_future(store.get("k")) for _ in range(50)]
        await asyncio.sleep(0)
        await store.aclose()
        assert await asyncio.gather(*tasks) == [None] * 50
        await until_alone(client)


async def until_alone(client: redis.Redis) -> None:
    """Wait until the server has noticed that nobody else is connected."""
    async with asyncio.timeout(60):
        while len(client.client_list()) > 1:  # noqa: ASYNC110  # the server tells nobody
            await asyncio.sleep(0)


async def test_a_forgotten_store_is_warned_of_and_closed(own_url: str, quiet_loop: None) -> None:
    """By its name; redis-py and asyncio warn of the connections as well."""
    store = RedisStore(own_url)
    await store.get("k")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        gc.collect()
    assert {warning.category for warning in caught} == {ResourceWarning}
    assert "<RedisStore 'ctxcache:'> was never closed" in str(caught[0].message)
    with look(own_url) as client:
        await until_alone(client)


@pytest.mark.parametrize("turns", range(0, 30, 3))
async def test_closing_while_operations_are_cancelled_leaves_no_connection(
    own_url: str, store: RedisStore, turns: int
) -> None:
    """Whatever moment it is, the first connection's making included."""
    tasks = [asyncio.ensure_future(store.get("k")) for _ in range(10)]
    for _ in range(turns):
        await asyncio.sleep(0)
    closing = asyncio.ensure_future(store.aclose())
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await closing
    await asyncio.gather(*tasks, return_exceptions=True)
    with look(own_url) as client:
        await until_alone(client)


async def test_a_broken_connection_is_made_anew(own_url: str, store: RedisStore) -> None:
    """Without an error, since every operation may be repeated."""
    await store.put("k", "ctx-1", 60, 60)
    with look(own_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
    assert await store.get("k") is not None


async def test_a_server_that_restarts_is_an_error_until_it_is_back(servers: ExitStack, quiet_loop: None) -> None:
    """The store is usable again then; it was the server's memory that was lost."""
    with redis_server() as url:
        store = RedisStore(url)
        await store.put("k", "ctx-1", 60, 60)
    with pytest.raises(redis.RedisError):
        await store.get("k")
    with redis_server(port=int(url.rpartition(":")[2])):
        assert await store.get("k") is None
        assert await store.lease("k", "me", 60)
        await store.aclose()


async def test_a_server_that_says_nothing_is_given_up(quiet_loop: None) -> None:
    """Within the store's own limits; nothing of it is left."""
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        gone.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        store = RedisStore(url, _step_seconds=0.05)
        with pytest.raises((redis.RedisError, TimeoutError)):
            await store.get("k")
        await store.aclose()
        await gone.wait()


def test_it_belongs_to_one_event_loop(own_url: str) -> None:
    """In another it says so, at every operation; it closes in its own."""
    store = RedisStore(own_url)
    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(store.put("k", "ctx-1", 60, 60))
        for operation in (store.get("k"), store.aclose()):
            with pytest.raises(SessionError, match="another event loop"):
                second.run(operation)
        first.run(store.aclose())


def test_a_store_never_used_closes_in_any_loop() -> None:
    """It has connected to nothing."""
    asyncio.run(RedisStore("redis://127.0.0.1:1").aclose())


async def test_a_password_opens_the_server_and_shows_nowhere(servers: ExitStack, quiet_loop: None) -> None:
    """Percent-encoded in the URL; neither in the repr nor in an error."""
    url = servers.enter_context(redis_server("--requirepass", PASSWORD))
    async with aclosing(RedisStore(url.replace("//", f"//:{ENCODED}@"))) as store:
        await store.put("k", "ctx-1", 60, 60)
        assert await store.get("k") is not None
        assert "s3cret" not in repr(store)
    async with aclosing(RedisStore(url.replace("//", "//:s3cret-wrong@"))) as store:
        with pytest.raises(redis.RedisError) as caught:
            await store.get("k")
        assert "s3cret" not in str(caught.value)


async def test_a_unix_socket_will_do(servers: ExitStack, quiet_loop: None, tmp_path_factory: Any) -> None:
    """And the URL's options are redis-py's, but for the form of the answers."""
    path = tmp_path_factory.mktemp("s") / "s"
    servers.enter_context(redis_server("--unixsocket", str(path)))
    async with aclosing(RedisStore(f"unix://{path}?db=3&decode_responses=true")) as store:
        await store.put("k", "ctx-1", 60, 60)
        found = await store.get("k")
        assert found is not None
        assert found.id == "ctx-1"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "127.0.0.1:6379",
        "",
        None,
        b"redis://127.0.0.1",
        "redis://:s3cret@127.0.0.1:port",
        "redis://:s3cret/x@127.0.0.1",
        "redis://:12/s3cret@127.0.0.1",
        "redis://:12#s3cret@127.0.0.1",
        "redis://:12?s3cret@127.0.0.1",
        "redis://:s3cret@127.0.0.1?socket_timeout=soon",
        "redis://:s3cret@[::1",
    ],
)
def test_what_is_no_url_is_refused(url: Any) -> None:
    """At once, and no part of it is told, since it may be the password's."""
    with pytest.raises(InvalidInputError) as caught:
        RedisStore(url)
    assert caught.value.field == "url"
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not any("s3cret" in repr(error) or "127" in str(error) for error in chain)
    assert pickle.loads(pickle.dumps(caught.value)).field == "url"


def test_a_prefix_is_a_string() -> None:
    """Anything else is refused at once."""
    with pytest.raises(InvalidInputError, match="prefix"):
        RedisStore("redis://127.0.0.1", prefix=None)  # type: ignore[arg-type]


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the store is made, not in the middle of a call."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(InvalidInputError, match=r"ctxcache\[redis\]"):
        RedisStore("redis://127.0.0.1")
