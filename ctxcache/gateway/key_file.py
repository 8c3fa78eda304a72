"""The keys of a gateway: one, or those of a file.

A file is read whole and replaced whole, so that a reader never finds half a list.
"""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from .. import checks
from ..config import Secret
from ..errors import InvalidInputError, SessionError
from .rules import key_list
from .rules.clients import NO_LIMITS, Clients, KeyLimits, digest
from .rules.key_list import ListedKey
from .serving import new_key

__all__ = ["Keys", "add_key", "read_keys", "remove_key"]

_log: Final = logging.getLogger("ctxcache.gateway")
_LARGEST: Final = 64 * 1024 * 1024
Change = Callable[[tuple[ListedKey, ...]], tuple[ListedKey, ...]]


class Keys:
    """The keys that a gateway accepts.

    Args:
        api_key: the only key; None makes a random one, unless there is a file.
        path: of a file of keys; None: there is only one key.

    Attributes:
        clients: finds the client of a key.

    Raises:
        InvalidInputError: for a key and a file, and for either that cannot be used.
    """

    def __init__(self, api_key: str | None, path: Any) -> None:
        self._path: Final = path
        self._key: Final = Secret(new_key() if api_key is None else checks.api_key(api_key)) if path is None else None
        if self._key is not None:
            self.clients = Clients.of_key(self._key)
        elif api_key is None:
            self.clients = Clients(key_list.clients_of(read_keys(path)))
        else:
            api_key = None  # tracebacks may show local variables
            raise InvalidInputError("keys must be left out where api_key is given", field="keys", allowed="left out")

    @property
    def api_key(self) -> str:
        """The only key.

        Raises:
            SessionError: the keys are those of a file.
        """
        if self._key is None:
            raise SessionError("the gateway has the keys of a file; the file has only hashes")
        return self._key.reveal()

    def reload(self) -> bool:
        """Read the file again; return whether the keys are those of the file now, as `Gateway.reload_keys`."""
        if self._path is None:
            return False
        try:
            keys = read_keys(self._path)
        except InvalidInputError as error:
            _log.warning("the keys stay as they were: %s", error.message)
            return False
        self.clients.replace(key_list.clients_of(keys))
        _log.info("the gateway has %d keys", len(keys))
        return True


def read_keys(path: Any) -> tuple[ListedKey, ...]:
    """Read the keys of a file.

    Raises:
        InvalidInputError: the file cannot be read, or is no list of keys.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError.of("keys", path, "the path of a file")
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    else:
        return key_list.decode(data)
    raise InvalidInputError(f"keys must be a file that can be read; {os.fspath(path)!r}: {problem}", field="keys")


def add_key(path: str, name: str, limits: KeyLimits = NO_LIMITS) -> str:
    """Add a new key to a file, which is made if there is none; return the key, which is kept nowhere.

    Raises:
        InvalidInputError: the name is none or is taken, or the file cannot be used.
    """
    key = new_key()
    listed = ListedKey(name=name, hash=digest(key.encode()), limits=limits)
    _change(path, lambda keys: key_list.add(keys, listed), make=True)
    return key


def remove_key(path: str, name: str) -> None:
    """Remove a key from a file.

    Raises:
        InvalidInputError: there is no such name, or the file cannot be used.
    """
    _change(path, lambda keys: key_list.remove(keys, name))


def _change(path: str, change: Change, *, make: bool = False) -> None:
    """Replace the file. The new file beside the old one is also the lock: two changes at once lose neither."""
    path = os.path.realpath(path)
    new = f"{path}.new"
    try:
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        problem = "is there: another command changes the keys, or was killed; then delete that file"
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
    else:
        _replace(descriptor, new, path, change, make=make)
        return
    raise InvalidInputError(f"{new} {problem}", field="keys")


def _replace(descriptor: int, new: str, path: str, change: Change, *, make: bool) -> None:
    try:
        with open(descriptor, "wb") as file:
            keys = () if make and not os.path.exists(path) else read_keys(path)
            file.write(key_list.encode(change(keys)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
