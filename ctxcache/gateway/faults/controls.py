"""The faults of a gateway that runs: a method for each kind, and `heal`."""

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypedDict, Unpack, overload

from .fault import Fault
from .plan import Plan

__all__ = ["Contexts", "FaultControls", "SetFault", "When"]


class When(TypedDict, total=False):
    """Which calls a fault strikes: all, unless told otherwise. See `Fault`."""

    on: Literal["create", "chat"] | None
    nth: int | None
    times: int | None
    probability: float | None
    seed: int | None


class SetFault:
    """A fault that was set, until `heal`; as `with gateway.outage(): …`, until the end of the block.

    Args:
        fault: the fault.
        struck: tells how many calls the fault struck.
        heal: ends the fault.
    """

    def __init__(self, fault: Fault, struck: Callable[[], int], heal: Callable[[], object]) -> None:
        self.fault: Final = fault
        self._struck: Final = struck
        self._heal: Final = heal

    def __repr__(self) -> str:
        return f"SetFault({self.fault.kind!r}, struck={self.struck})"

    @property
    def struck(self) -> int:
        """How many calls the fault struck."""
        return self._struck()

    def heal(self) -> None:
        """End the fault. No effect the second time."""
        self._heal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()


class Contexts(Protocol):
    """Where contexts end."""

    def expire(self, context_id: str) -> bool:
        """Expire a context now."""
        ...


class FaultControls:
    """What can be made to go wrong, from the next call on.

    A fault strikes every call until it is healed. `on="chat"` or `"create"`, `nth`, `times`, `probability` and `seed`
    choose among the calls, as in `Fault`. Faults add up: of several refusals the one set first is sent.

    Each method returns the fault that was set, and raises `InvalidInputError` for a value out of range.
    """

    _faults: Plan
    _contexts: Contexts

    def set_fault(self, fault: Fault | str) -> SetFault:
        """Set a fault, given as a `Fault` or in one line, as for `ctxcache serve --fault`: "chat:fail=503,times=2"."""
        setting = self._faults.set(fault)
        return SetFault(setting.fault, lambda: setting.struck, partial(self._faults.heal, setting))

    def heal(self) -> None:
        """End all faults. Calls that were struck before go on as they are."""
        self._faults.heal()

    def fail(
        self, status: int, *, code: str | None = None, retry_after: float | None = None, **when: Unpack[When]
    ) -> SetFault:
        """Refuse calls with a status from 400 to 599; nothing of the call runs."""
        return self.set_fault(Fault("fail", status=status, code=code, retry_after=retry_after, **when))

    def rate_limit(self, retry_after: float = 1.0, **when: Unpack[When]) -> SetFault:
        """Refuse calls with 429 and `Retry-After`."""
        return self.set_fault(Fault("rate_limit", retry_after=retry_after, **when))

    def busy(self, **when: Unpack[When]) -> SetFault:
        """Refuse chats as if another call ran on the session context."""
        return self.set_fault(Fault("busy", **when))

    @overload
    def expire(self, context_id: str) -> bool: ...

    @overload
    def expire(self, context_id: None = None, **when: Unpack[When]) -> SetFault: ...

    def expire(self, context_id: str | None = None, **when: Unpack[When]) -> bool | SetFault:
        """Expire a context now, as its ttl would: the next call on the context is refused.

        Without an id, each chat that the fault strikes finds its context expired.

        Returns:
            Of a context: whether there was one.
        """
        return self.set_fault(Fault("expire", **when)) if context_id is None else self._contexts.expire(context_id)

    def outage(self, **when: Unpack[When]) -> SetFault:
        """Refuse connections, and cut those that are open; nothing of a call runs.

        With `on`, `nth`, `times` or `probability`, only the connections of the calls are cut that the fault strikes.
        """
        return self.set_fault(Fault("outage", **when))

    def limits(self, *, rpm: int | None = None, at_once: int | None = None, **when: Unpack[When]) -> SetFault:
        """Refuse calls with 429 beyond so many in a minute, by the gateway's clock, or at a time."""
        return self.set_fault(Fault("limits", rpm=rpm, at_once=at_once, **when))

    def delay(self, seconds: float, **when: Unpack[When]) -> SetFault:
        """Let calls wait before anything else."""
        return self.set_fault(Fault("delay", seconds=seconds, **when))

    def slow_first_token(self, seconds: float, **when: Unpack[When]) -> SetFault:
        """Let the first part of answers wait."""
        return self.set_fault(Fault("slow_first_token", seconds=seconds, **when))

    def disconnect(self, *, after_chunks: int = 1, **when: Unpack[When]) -> SetFault:
        """Cut the connection after so many chunks of a stream, or in place of a plain answer; no turn is stored."""
        return self.set_fault(Fault("disconnect", after_chunks=after_chunks, **when))

    def truncate(self, *, after_chunks: int = 1, **when: Unpack[When]) -> SetFault:
        """End streams after so many chunks, plain answers in the middle; no turn is stored.

        By HTTP such an answer is whole: no finish reason and no `[DONE]` came, or half of the JSON.
        """
        return self.set_fault(Fault("truncate", after_chunks=after_chunks, **when))

    def stall(self, seconds: float = 30.0, *, after_chunks: int = 1, **when: Unpack[When]) -> SetFault:
        """Send nothing more after so many chunks, or nothing of a plain answer; no turn is stored.

        A client that has not given up after so many seconds loses the connection.
        """
        return self.set_fault(Fault("stall", seconds=seconds, after_chunks=after_chunks, **when))

    def corrupt(self, *, after_chunks: int = 1, **when: Unpack[When]) -> SetFault:
        """Garble the chunk after so many, or a plain answer; the turn is stored."""
        return self.set_fault(Fault("corrupt", after_chunks=after_chunks, **when))

    def lose_reply(self, *, after_chunks: int = 0, **when: Unpack[When]) -> SetFault:
        """Run calls to the end, store the turn or the context, and cut the connection in place of the answer.

        Of a stream so many chunks are sent before.
        """
        return self.set_fault(Fault("lose_reply", after_chunks=after_chunks, **when))

    def evict(self, **when: Unpack[When]) -> SetFault:
        """Tell of 0 cached tokens, as if the cache had lost the context."""
        return self.set_fault(Fault("evict", **when))

    def no_usage(self, **when: Unpack[When]) -> SetFault:
        """Leave the usage out of answers."""
        return self.set_fault(Fault("no_usage", **when))

    def reply(self, text: str, **when: Unpack[When]) -> SetFault:
        """Answer with a text in place of the engine's."""
        return self.set_fault(Fault("reply", text=text, **when))
