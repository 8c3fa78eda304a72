"""What a store is: a shared note of which context serves which prefix, and of who is creating one just now."""

from typing import Protocol

import attrs

__all__ = ["Store", "StoredContext"]


@attrs.frozen
class StoredContext:
    """What a store keeps of a context; nothing secret.

    Attributes:
        id: the service's id of the context.
        ttl: how long it lives without being used, in seconds.
        remaining: seconds until it is gone, counted from the answer of `get`; above 0.
    """

    id: str
    ttl: float
    remaining: float


class Store(Protocol):
    """Keeps, for each key, the context that serves it and the right to create one: what to implement for one's own.

    A key is a hash that tells accounts, models and messages apart (at most 200 characters of ASCII letters, digits,
    `_`, `-` and `.`); nothing secret can be read from it. Contexts and leases of one key are independent of each other
    and of every other key.

    Times are durations in seconds, counted by the store's own clock from the moment it carries out the operation, so
    that no two machines' clocks need agree. What has passed its time is as if it had never been there; a store should
    also drop it, so as not to grow for ever.

    Each operation is atomic: of two at once, from whatever process or machine, one happens before the other. All may
    be repeated: the second time changes nothing but the time. An operation that is cancelled, or raises, may or may not
    have happened; the store stays usable. An operation may raise anything: whoever uses a store guards every call,
    limits its time, and goes on without the store where it fails. It must never block the event loop.
    """

    async def get(self, key: str) -> StoredContext | None:
        """Return the context kept for a key, None if there is none or its time has passed."""
        ...

    async def put(self, key: str, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context for `remaining` seconds, in place of the one kept before, if any.

        `ttl` is only kept and given back: it is not the time after which the store drops the context. With no time
        remaining, nothing is kept.
        """
        ...

    async def touch(self, key: str, context_id: str, remaining: float) -> None:
        """Note that a context was used: it has `remaining` seconds from now.

        Does nothing if another context is kept or none, and nothing if the kept one has more time already: several
        processes use it, and their notes may arrive late.
        """
        ...

    async def forget(self, key: str, context_id: str) -> None:
        """Drop a context; do nothing if another is kept: somebody else has replaced it already."""
        ...

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take the right to create a context for a key, or extend it: it ends `seconds` (above 0) from now.

        Returns:
            True if `holder` has it now; False, and nothing changed, while another has it. A holder that dies without
            `release` loses it when its seconds are over.
        """
        ...

    async def release(self, key: str, holder: str) -> None:
        """Give the right back; do nothing if `holder` does not have it."""
        ...

    async def aclose(self) -> None:
        """Give back what the store holds in this process (connections, files, threads); a second time does nothing.

        What is kept stays, for as long as its time says, unless it was in this process only. Any other operation after
        this raises. Who makes a store closes it, after all that use it.
        """
        ...
