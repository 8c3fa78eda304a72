"""Stores by strings."""

from pathlib import Path

import pytest

from ctxcache import InvalidInputError, RedisStore, SQLiteStore
from ctxcache.managed.stores import open_store, sqlite_path

SECRET = "s3cret"


@pytest.mark.parametrize("beginning", ["", "sqlite://", "sqlite:///"])
async def test_files(tmp_path: Path, beginning: str) -> None:
    """A path, and a URL with three slashes or four, name the same file; no character has a meaning."""
    file = tmp_path / "con%20texts #1?@.db"
    async with open_store(f"{beginning}{file}") as store:
        assert isinstance(store, SQLiteStore)
        await store.put("k", "ctx-1", 3600, 60)
    assert file.exists()


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path without a slash in front is one from here; a URL has none of that kind."""
    monkeypatch.chdir(tmp_path)
    assert repr(open_store("contexts.db")) == f"<SQLiteStore '{tmp_path}/contexts.db'>"
    assert sqlite_path("contexts.db") == "contexts.db"


@pytest.mark.parametrize("url", ["redis://host:6379/3", f"rediss://u:{SECRET}@host", "unix:///run/redis.sock"])
async def test_redis(url: str) -> None:
    """The URLs of Redis go to `RedisStore` as they are; nothing connects yet."""
    pytest.importorskip("redis")
    async with open_store(url) as store:
        assert isinstance(store, RedisStore)
    assert sqlite_path(url) is None


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("", "path must be the path of a file"),
        ("sqlite://", "store must be sqlite:///PATH"),
        ("sqlite:///", "store must be sqlite:///PATH"),
        ("sqlite://contexts.db", "store must be sqlite:///PATH"),
        (f"postgres://u:{SECRET}@host", "url: it must be redis://"),
    ],
)
def test_other_forms(place: str, told: str) -> None:
    """Other forms are refused, without the password."""
    with pytest.raises(InvalidInputError) as refused:
        open_store(place)
    assert refused.value.message.startswith(told)
    assert SECRET not in str(refused.value)
