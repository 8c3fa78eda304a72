"""A store by its URL, which can be pickled where a store cannot."""

import os
from typing import Final

from ..errors import InvalidInputError
from ..managed import RedisStore, SQLiteStore
from ..managed.stores import open_store, sqlite_path

__all__ = ["check_store_url", "store_of"]

_VARIABLE: Final = "CTXCACHE_STORE"
_REDIS: Final = ("redis://", "rediss://", "unix://")
_ALLOWED: Final = "sqlite:///PATH (absolute), redis://HOST, rediss://HOST, unix://PATH, or None"


def check_store_url(url: object) -> None:
    """Check a store's URL without opening the store.

    Raises:
        InvalidInputError: the URL has another form, or a password, which pickles and task graphs would show.
    """
    if url is None:
        return
    text = url if isinstance(url, str) else ""
    secret = "@" in text or "password=" in text
    if text.startswith(_REDIS) and secret:
        raise InvalidInputError(
            f"store must be a URL without a password: set {_VARIABLE} in the environment of the workers",
            field="store",
            allowed="a URL without a password",
        )
    if not text.startswith(_REDIS) and not os.path.isabs(sqlite_path(text) or ""):
        raise InvalidInputError.of("store", type(url) if secret else url, _ALLOWED)


def store_of(url: str | None) -> RedisStore | SQLiteStore | None:
    """Open the store of a URL, by default of the environment's `CTXCACHE_STORE`; None without either.

    Raises:
        InvalidInputError: the variable has another form, or redis is not installed.
    """
    if url is None:
        url = os.environ.get(_VARIABLE) or None
        if url is None:
            return None
        if not url.startswith(_REDIS):
            check_store_url(url)
    return open_store(url)
