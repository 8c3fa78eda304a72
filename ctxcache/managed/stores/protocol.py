"""`Store`: a shared record of which context serves which prefix, of who is creating a context now, and of pauses."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Protocol, Self

import attrs

__all__ = ["LONGEST_LEASE", "LONGEST_PAUSE", "ClosingStore", "Store", "StoredContext"]

LONGEST_LEASE: Final = 30.0
LONGEST_PAUSE: Final = 3600.0


@attrs.frozen
class StoredContext:
    """A context as kept in a store; nothing secret.

    Attributes:
        id: the service's id of the context.
        ttl: idle seconds after which the service drops the context.
        remaining: seconds until the context is gone, counted from the answer of `get`; above 0.
    """

    id: str
    ttl: float
    remaining: float


class Store(Protocol):
    """Keeps a context, a lease and a pause for each key.

    For a store of your own, write a class with these methods; no base class is needed. `Prefix` never closes a store.

    The lease is the right to create the key's context. A key is a hash that tells accounts, models and messages apart
    (at most 200 characters of ASCII letters, digits, `_`, `-` and `.`) and reveals nothing secret. The context, the
    lease and the pause of a key are independent of each other and of every other key.

    A pause is a wait that the service asked for, with a 429 and `Retry-After`, and that holds for all processes of the
    account. A store written before there were `pause` and `paused` works without the two methods, and shares no pauses.

    Times are durations in seconds, counted by the store's own clock from the moment of the operation, so that clocks of
    different machines need not agree. An expired entry counts as absent; a store should also delete expired entries, so
    as not to grow for ever.

    Each operation is atomic: of two concurrent operations, from any process or machine, one happens before the other.
    Each may be repeated: the second time changes nothing but the time. An operation that is cancelled, or raises, may
    or may not have happened; the store stays usable. An operation may raise any exception: callers guard every
    operation with a time limit, and continue without a store that fails. An operation must never block the event loop.
    """

    async def get(self, key: str) -> StoredContext | None:
        """Return the context kept for a key, None if there is none or it has expired."""
        ...

    async def put(self, key: str, context_id: str, ttl: float, remaining: float) -> None:
        """Keep a context for `remaining` seconds, in place of any kept before.

        `ttl` is only kept and returned; the store drops the context after `remaining` seconds. With no time remaining,
        nothing is kept.
        """
        ...

    async def touch(self, key: str, context_id: str, remaining: float) -> None:
        """Note that a context was used, and now has `remaining` seconds.

        Does nothing if another context is kept, or none, or if the kept context has more time already: several
        processes use one context, and their notes may arrive late.
        """
        ...

    async def forget(self, key: str, context_id: str) -> None:
        """Drop a context; do nothing if another is kept: another process has replaced it already."""
        ...

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """Take the lease of a key, or extend it, for `seconds` (above 0) from now, 30 at most.

        Returns:
            True if `holder` has the lease now; False, with nothing changed, while another holder has it. A holder that
            dies without `release` loses the lease when its seconds are over. A lease that would last longer than 30
            seconds from now (the store's clock was set back, the entry was damaged) counts as over.
        """
        ...

    async def release(self, key: str, holder: str) -> None:
        """Give the lease back; do nothing if `holder` does not have it."""
        ...

    async def pause(self, key: str, seconds: float) -> None:
        """Note that nobody is to call for `seconds` from now, 3600 at most; never shorten a pause."""
        ...

    async def paused(self, key: str) -> float:
        """Return the seconds until the pause of a key ends; 0 without a pause.

        A pause that would last longer than 3600 seconds from now (the store's clock was set back, the entry was
        damaged) counts as over.
        """
        ...

    async def aclose(self) -> None:
        """Close the store's connections, files and threads in this process; a second call does nothing.

        Entries stay until they expire, except those of a store in memory. Any other operation raises afterwards.
        Whoever made the store closes it, after everything that uses it.
        """
        ...


class ClosingStore(ABC):
    """`async with` for a store, which is closed at the end of the block."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the store."""
        ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
