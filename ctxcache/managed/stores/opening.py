"""`open_store`: a store by a string, as in options, environment variables and pickles."""

from typing import Final

from ...errors import InvalidInputError
from .redis import RedisStore
from .sqlite import SQLiteStore

__all__ = ["open_store", "sqlite_path"]

_SQLITE: Final = "sqlite://"


def open_store(place: str) -> RedisStore | SQLiteStore:
    """Open a store; nothing is connected or written yet.

    Args:
        place: the path of an SQLite file, or a URL: `sqlite:///PATH` with an absolute path, whose characters stand for
            themselves; `redis://HOST`, `rediss://HOST` or `unix://PATH`, as `RedisStore` takes.

    Raises:
        InvalidInputError: `place` has another form, or redis is not installed.
    """
    path = sqlite_path(place)
    if path is None:
        return RedisStore(place)
    if not path and place:
        raise InvalidInputError.of("store", place, "sqlite:///PATH with an absolute path")
    return SQLiteStore(path)


def sqlite_path(place: str) -> str | None:
    """Return the path of the SQLite file that a string names; "" if there is none, None for any other URL."""
    if not place.startswith(_SQLITE):
        return None if "://" in place else place
    path = place.removeprefix(_SQLITE)
    if not path.startswith("/") or not path.strip("/"):
        return ""
    return "/" + path.lstrip("/")  # after three slashes or, as some tools write, four
