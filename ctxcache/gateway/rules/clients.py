"""The clients of a gateway, each known by a key. Contexts belong to the client that created them."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

import attrs

from ... import checks
from ...config import Secret

__all__ = ["NO_LIMITS", "ONLY", "Client", "Clients", "KeyLimits", "digest"]


def _count(name: str) -> Any:
    def check(value: Any) -> Any:
        return None if value is None else checks.whole(name, value, 1)

    return attrs.field(default=None, converter=check)


@attrs.frozen(kw_only=True)
class KeyLimits:
    """The limits of one key, each None for no limit beside those of the gateway.

    Attributes:
        contexts: the most contexts at once.
        memory_bytes: the most memory for the messages of all contexts.
        calls: the most calls at once, streams and creates included.
        requests_per_minute: the most creates and chats in any 60 seconds.
        tokens_per_minute: chats are refused while so many tokens were used in the last 60 seconds, of contexts,
            questions and replies.

    Raises:
        InvalidInputError: for anything but a whole number from 1 up.
    """

    contexts: int | None = _count("contexts")
    memory_bytes: int | None = _count("memory_bytes")
    calls: int | None = _count("calls")
    requests_per_minute: int | None = _count("requests_per_minute")
    tokens_per_minute: int | None = _count("tokens_per_minute")

    @property
    def limit_calls(self) -> bool:
        """Whether calls are limited, and not only what stays."""
        return (self.calls, self.requests_per_minute, self.tokens_per_minute) != (None, None, None)


NO_LIMITS: Final = KeyLimits()


@attrs.frozen(kw_only=True)
class Client:
    """One client.

    Attributes:
        owner: what the client's contexts are marked with: "" for the only key of a gateway, whatever that key is.
        name: the client's name for engines, `Prompt.client`: a keyed hash, from which the key cannot be told.
        limits: the limits of the key.
    """

    owner: str = ""
    name: str = ""
    limits: KeyLimits = NO_LIMITS


ONLY: Final = Client()  # the owner of everything without an owner


class Clients:
    """Finds the client of a key.

    Only hashes of keys are compared, so that the time of an answer tells nothing about a key.

    Args:
        clients: the clients by the `digest` of the key.
    """

    def __init__(self, clients: Mapping[bytes, Client]) -> None:
        self._clients = dict(clients)

    @classmethod
    def of_key(cls, key: Secret) -> "Clients":
        """Make the one client of the only key."""
        text = key.reveal().encode()
        return cls({digest(text): Client(name=hmac.new(text, b"ctxcache client", hashlib.sha256).hexdigest())})

    def replace(self, clients: Mapping[bytes, Client]) -> None:
        """Know these clients from now on, and no others."""
        self._clients = dict(clients)

    def find(self, key: bytes) -> Client | None:
        """Return the client of a key; None for an unknown key."""
        return self._clients.get(digest(key))


def digest(key: bytes) -> bytes:
    """Hash a key. Keys are random and long, so that a plain hash cannot be searched."""
    return hashlib.sha256(key).digest()
