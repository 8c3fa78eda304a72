"""What every server here has: a key for clients, a URL, a listener."""

import secrets
from typing import Final

from ..errors import APIConnectionError, InvalidInputError
from .app import BASE_PATH
from .connection import Connections
from .listener import Listener

__all__ = ["checked_key", "local_url", "new_key", "open_listener"]

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # wildcards cannot be called


def new_key() -> str:
    """Make a random key."""
    return f"sk-{secrets.token_hex(24)}"


def checked_key(value: object) -> str:
    """Return a key that a header can carry.

    Raises:
        InvalidInputError: for any other value, which is not shown.
    """
    if isinstance(value, str) and value != "" and value.isascii() and value.isprintable() and " " not in value:
        return value
    allowed = "printable ASCII without spaces"
    value = None  # tracebacks may show local variables
    raise InvalidInputError(f"api_key must be {allowed}", field="api_key", allowed=allowed)


def local_url(host: str, port: int) -> str:
    """Return the base URL for clients of a server that listens on a host."""
    host = _LOOPBACK.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{BASE_PATH}"


async def open_listener(host: str, port: int, connections: Connections) -> Listener:
    """Listen on every address of a host.

    Raises:
        APIConnectionError: no address can be listened on (port in use, no such address, not allowed).
    """
    try:
        return await Listener.open(host, port, connections, connections.turn_away)
    except (OSError, ValueError) as error:  # ValueError: a host that cannot be encoded
        problem = getattr(error, "strerror", None) or str(error)
    raise APIConnectionError(f"cannot listen on {host} port {port}: {problem}")
