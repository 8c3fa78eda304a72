"""The bounds of a gateway: frozen values, checked when made. Sizes are in bytes, times in seconds."""

from typing import Any, Final

import attrs

from .. import checks

__all__ = ["GatewayLimits"]

_MIB: Final = 1024 * 1024
# A token is at most 4 characters, and a character at most 12 bytes of JSON (a pair of \uXXXX escapes).
_BODY_BYTES_A_TOKEN: Final = 48
_MEMORY_A_TOKEN: Final = 16  # 4 characters of 4 bytes
_BODY_BESIDE_TEXT: Final = 4 * _MIB  # JSON around the text, tools, images
_LARGEST_BODY: Final = 64 * _MIB
_MEMORY_BESIDE_TEXT: Final = 32 * _MIB


def _count(name: str, default: int | None, least: int = 1) -> Any:
    def check(value: int | None) -> int | None:
        return None if value is None and default is None else checks.whole(f"GatewayLimits.{name}", value, least)

    return attrs.field(default=default, converter=check)


def _seconds(name: str, default: float) -> Any:
    allowed = "a number of seconds above 0"
    return attrs.field(
        default=default,
        converter=lambda value: checks.number(f"GatewayLimits.{name}", value, 0.001, allowed=allowed),
    )


@attrs.frozen(kw_only=True)
class GatewayLimits:
    """The bounds of a gateway, against clients that ask for too much or are too slow.

    Attributes:
        connections: the most open connections; further ones get a 503 and are closed. Never more than three eighths
            of the files that the process may open: a relayed answer takes two.
        head_seconds: the time for a request's head, from the first byte (then 408).
        body_seconds: the time for a request's body (then 408); for every 16 KiB that arrive, a second more.
        idle_seconds: how long a connection without a request stays open.
        write_seconds: how long a client may take no more of an answer that waits; then the connection is cut, and the
            session that was answered is free.
        body_bytes: the largest request body (then 413). None: whatever fits the largest context window, and 4 MiB for
            everything beside the text; at most 64 MiB.
        request_bytes: the most memory for all requests under way, as their bodies tell (then 429, `Retry-After: 1`).
        contexts: the most contexts at once (then 429 `QuotaExceeded`, as for the next two).
        context_bytes: the most memory for the messages of one context, every field counted. None: whatever fits the
            largest context window, and 32 MiB.
        memory_bytes: the most memory for the messages of all contexts. A full garbage collection stops the gateway for
            about half a microsecond a message.

    Raises:
        InvalidInputError: for a number out of range.
    """

    connections: int = _count("connections", 10_000)
    head_seconds: float = _seconds("head_seconds", 20.0)
    body_seconds: float = _seconds("body_seconds", 60.0)
    idle_seconds: float = _seconds("idle_seconds", 75.0)
    write_seconds: float = _seconds("write_seconds", 60.0)
    body_bytes: int | None = _count("body_bytes", None)
    request_bytes: int = _count("request_bytes", 512 * _MIB)
    contexts: int = _count("contexts", 100_000)
    context_bytes: int | None = _count("context_bytes", None)
    memory_bytes: int = _count("memory_bytes", 512 * _MIB)

    def body_bytes_for(self, window: int) -> int:
        """Return `body_bytes`, where it is None for a largest window of so many tokens."""
        fitting = min(_LARGEST_BODY, window * _BODY_BYTES_A_TOKEN + _BODY_BESIDE_TEXT)
        return fitting if self.body_bytes is None else self.body_bytes

    def context_bytes_for(self, window: int) -> int:
        """Return `context_bytes`, where it is None for a largest window of so many tokens."""
        return window * _MEMORY_A_TOKEN + _MEMORY_BESIDE_TEXT if self.context_bytes is None else self.context_bytes
