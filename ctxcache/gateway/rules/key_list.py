"""The list of keys in a file: JSON with a line for each key, which has a name and a hash, never the key."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from ... import checks, codec
from ...errors import InvalidInputError, ProtocolError
from .clients import NO_LIMITS, Client, KeyLimits

__all__ = ["ListedKey", "add", "clients_of", "decode", "encode", "read_limits", "remove"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_NAMES: Final = "1 to 64 letters, digits and . _ @ -, a letter or digit first"
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_FORM: Final = 'a file of keys as `ctxcache keys add` writes: {"keys": [{"name": …, "hash": …}]}'


@attrs.frozen(kw_only=True)
class ListedKey:
    """A key of the list.

    Attributes:
        name: the name, one of its kind in the list.
        hash: the `digest` of the key.
        limits: the limits of the key.
    """

    name: str
    hash: bytes
    limits: KeyLimits = NO_LIMITS

    @property
    def limits_given(self) -> dict[str, int]:
        """The limits that there are, by name."""
        return {name: value for name, value in attrs.asdict(self.limits).items() if value is not None}


def encode(keys: Iterable[ListedKey]) -> bytes:
    """Write a list."""
    lines = [codec.encode({"name": key.name, "hash": key.hash.hex(), "limits": key.limits_given}) for key in keys]
    return b'{"keys": [%b\n]}\n' % b",".join(b"\n" + line for line in lines)


def decode(data: bytes) -> tuple[ListedKey, ...]:
    """Read a list.

    Raises:
        InvalidInputError: for other data.
    """
    try:
        listed = codec.decode_object(data).get("keys")
    except ProtocolError:
        listed = None
    if not isinstance(listed, list):
        raise _invalid(_FORM)
    keys: tuple[ListedKey, ...] = ()
    for item in listed:
        keys = add(keys, _read(item))
    return keys


def _read(item: Any) -> ListedKey:
    fields = item if isinstance(item, Mapping) else {}
    found = fields.get("hash")
    if not isinstance(found, str) or not _HASH.fullmatch(found) or fields.keys() - {"limits"} != {"name", "hash"}:
        raise _invalid(_FORM)
    return ListedKey(name=fields["name"], hash=bytes.fromhex(found), limits=read_limits(fields.get("limits", {})))


def read_limits(fields: Any) -> KeyLimits:
    """Read limits by name.

    Raises:
        InvalidInputError: for anything but whole numbers under the names of limits.
    """
    if not isinstance(fields, Mapping):
        raise _invalid(_FORM)
    for name in fields:
        checks.one_of("limit", name, [field.name for field in attrs.fields(KeyLimits)])
    return KeyLimits(**fields)


def add(keys: tuple[ListedKey, ...], key: ListedKey) -> tuple[ListedKey, ...]:
    """Return the list with another key.

    Raises:
        InvalidInputError: the name is none, or is taken.
    """
    if not isinstance(key.name, str) or not _NAME.fullmatch(key.name):
        raise InvalidInputError.of("name", key.name, _NAMES)
    if any(key.name == other.name or key.hash == other.hash for other in keys):
        raise InvalidInputError.of("name", key.name, "a name without a key: remove that first")
    return (*keys, key)


def remove(keys: tuple[ListedKey, ...], name: str) -> tuple[ListedKey, ...]:
    """Return the list without the key of a name.

    Raises:
        InvalidInputError: there is no such name.
    """
    left = tuple(key for key in keys if key.name != name)
    if len(left) == len(keys):
        raise InvalidInputError.of("name", name, "the name of a key of the file")
    return left


def clients_of(keys: Iterable[ListedKey]) -> dict[bytes, Client]:
    """Return the clients for `Clients`. A client is told by the key, not the name: a new key owns nothing yet."""
    return {key.hash: _client(key) for key in keys}


def _client(key: ListedKey) -> Client:
    name = hmac.new(key.hash, b"ctxcache client", hashlib.sha256).hexdigest()
    return Client(owner=name, name=name, limits=key.limits)


def _invalid(allowed: str) -> InvalidInputError:
    return InvalidInputError(f"keys must be {allowed}", field="keys", allowed=allowed)
