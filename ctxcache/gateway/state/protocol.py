"""The protocols of a state, which keeps contexts beyond the gateway's process."""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import attrs

from ..rules.clients import KeyLimits
from ..rules.records import ContextRecord
from ..rules.sizes import SizedMessage

__all__ = ["Claim", "SharedState", "State"]


class State(Protocol):
    """Keeps contexts. One gateway at a time uses a state, unless that is a `SharedState`.

    What `create` and `append` were told is kept once they return, whatever happens to the process afterwards. What they
    raise is sent to the client, an `APIStatusError` with status 503; nothing of that call is kept then.
    """

    async def start(self) -> Collection[ContextRecord]:
        """Get ready; return the contexts to hold in memory from the start, none of them expired.

        Raises:
            SessionError: the state cannot be used.
        """
        ...

    async def create(self, record: ContextRecord, limits: KeyLimits) -> None:
        """Keep a new context of a key with these limits, which a `SharedState` holds the key to."""
        ...

    async def append(self, context_id: str, turn: Sequence[SizedMessage], dropped: int, deadline: float) -> None:
        """Keep a completed turn, whole or not at all, then drop the oldest messages of the history.

        Args:
            context_id: the context.
            turn: the messages.
            dropped: how many messages go, those of the turn included.
            deadline: the new end of the idle timer, Unix seconds.
        """
        ...

    def release(self, context_id: str, deadline: float | None) -> None:
        """Take note that a call has ended. To return at once; kept within a second or so.

        Args:
            context_id: the context.
            deadline: the new end of the idle timer; None for a call that was refused.
        """
        ...

    def forget(self, context_id: str) -> None:
        """Drop a context within a second or so. To return at once."""
        ...

    async def aclose(self) -> None:
        """Keep what is still to be kept, and let go of everything."""
        ...


@attrs.frozen(kw_only=True)
class Claim:
    """The outcome of `SharedState.claim`.

    Attributes:
        busy: whether another gateway has the session; everything else is empty then.
        messages: the messages stored since those that were known.
        first: the number of the oldest message of the history, among all that were ever stored.
        stored: how many messages were ever stored.
        deadline: when the idle timer ends, Unix seconds.
    """

    busy: bool = False
    messages: Sequence[SizedMessage] = ()
    first: int = 0
    stored: int = 0
    deadline: float = 0.0


@runtime_checkable
class SharedState(State, Protocol):
    """Keeps the contexts of several gateways, each of which may serve any of them.

    A session is claimed for each call; a claim that is not renewed ends by itself, so that a gateway that is killed
    blocks nobody, and `append` fails without a claim, so that one that was held up stores nothing afterwards.
    """

    async def find(self, context_id: str, owner: str) -> ContextRecord | None:
        """Return a context; None if unknown, expired, or of another owner, in the same time.

        Raises:
            APIStatusError: the state cannot be reached (503).
        """
        ...

    async def claim(self, context_id: str, known: int, memory: int, most: int | None) -> Claim | None:
        """Claim a session, until `append` or `release`.

        Args:
            context_id: the session.
            known: how many messages of turns the caller has, of all that were ever stored.
            memory: the bytes of memory of the question.
            most: the most memory for all contexts of the key; None for no limit.

        Returns:
            None if the context is gone.

        Raises:
            APIStatusError: the state cannot be reached (503), or the key has too much memory (429).
        """
        ...

    async def admit(self, owner: str, limits: KeyLimits) -> str:
        """Count a call of a key that begins, at any gateway; return a token for `end`.

        A call that is never ended, because the gateway was killed, ends within seconds.

        Raises:
            APIStatusError: a limit of the key would be passed (429), or the state cannot be reached (503).
        """
        ...

    def end(self, owner: str, token: str, tokens: int) -> None:
        """Count a call that ends, and the tokens that the call used. To return at once; told within a second or so."""
        ...
