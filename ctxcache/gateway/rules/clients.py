"""The clients of a gateway, each known by a key. Contexts belong to the client that created them."""

import hashlib
import hmac
from collections.abc import Mapping

import attrs

from ...config import Secret

__all__ = ["Client", "Clients", "digest"]


@attrs.frozen(kw_only=True)
class Client:
    """One client.

    Attributes:
        owner: what the client's contexts are marked with: "" for the only key of a gateway, whatever that key is.
        name: the client's name for engines, `Prompt.client`: a keyed hash, from which the key cannot be told.
    """

    owner: str = ""
    name: str = ""


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
