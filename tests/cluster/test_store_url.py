"""Stores by their URLs."""

from pathlib import Path

import pytest

from ctxcache import InvalidInputError, RedisStore, SQLiteStore
from ctxcache.cluster.store_url import check_store_url, store_of

SECRET = "s3cret"


@pytest.mark.parametrize("slashes", ["", "/"])
async def test_an_sqlite_url_names_an_absolute_path(tmp_path: Path, slashes: str) -> None:
    """After three slashes or four: the path is absolute, since workers stand in different folders."""
    file = tmp_path / "con%20texts #1?.db"  # no character has a meaning
    url = f"sqlite://{slashes}{file}"
    check_store_url(url)
    store = store_of(url)
    assert isinstance(store, SQLiteStore)
    async with store:
        await store.put("k", "ctx-1", 3600, 60)
    assert file.exists()


async def test_a_redis_url() -> None:
    """The URL goes to `RedisStore` as it is; nothing connects yet."""
    pytest.importorskip("redis")
    check_store_url("redis://127.0.0.1:6379/3")
    store = store_of("redis://127.0.0.1:6379/3")
    assert isinstance(store, RedisStore)
    await store.aclose()


def test_an_absolute_path(tmp_path: Path) -> None:
    """The absolute path of a file does as well, as for every store."""
    check_store_url(f"{tmp_path}/contexts.db")
    assert isinstance(store_of(f"{tmp_path}/contexts.db"), SQLiteStore)


def test_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL and without the variable there is no store; an empty variable is none."""
    monkeypatch.delenv("CTXCACHE_STORE", raising=False)
    check_store_url(None)
    assert store_of(None) is None
    monkeypatch.setenv("CTXCACHE_STORE", "")
    assert store_of(None) is None


async def test_the_store_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variable may have a password, which the URL of an argument may not."""
    pytest.importorskip("redis")
    monkeypatch.setenv("CTXCACHE_STORE", f"redis://user:{SECRET}@127.0.0.1:6379")
    store = store_of(None)
    assert isinstance(store, RedisStore)
    await store.aclose()
    assert isinstance(store_of(f"sqlite:///{tmp_path}/contexts.db"), SQLiteStore)
    monkeypatch.setenv("CTXCACHE_STORE", "contexts.db")
    with pytest.raises(InvalidInputError, match="store must be sqlite:///PATH"):
        store_of(None)


@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@host", f"rediss://host/0?password={SECRET}", f"unix://u:{SECRET}@/run/redis.sock"]
)
def test_passwords_are_refused(url: str) -> None:
    """An argument is pickled: a password belongs in the environment. The error does not show it."""
    with pytest.raises(InvalidInputError, match="set CTXCACHE_STORE in the environment of the workers") as caught:
        check_store_url(url)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize(
    "url", ["", "contexts.db", "sqlite://", "sqlite:///", "sqlite://contexts.db", f"postgres://u:{SECRET}@host", 5]
)
def test_other_urls_are_refused(url: object) -> None:
    """The error says which forms there are, and shows no password."""
    with pytest.raises(InvalidInputError, match="store must be sqlite:///PATH") as caught:
        check_store_url(url)
    assert SECRET not in str(caught.value)
