"""A gateway in a thread of its own, for tests with any event loop or none, which keeps a record of every call."""

import asyncio
import threading
from collections.abc import Callable, Collection, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from .. import checks
from ..errors import InvalidInputError, SessionError
from ..gateway import Fault, Gateway
from ..gateway.faults import FaultControls, SetFault
from ..gateway.faults.record import RecordedCall
from ..models import Message, assistant
from .books import doubled_turns, lost_turns
from .verdicts import FINDINGS, Finding, cached_share, find

__all__ = ["RecordingGateway"]

_SHOWN: Final = 60

T = TypeVar("T")


class RecordingGateway(FaultControls):
    """A `Gateway` that runs in a thread, on an event loop of its own: `with RecordingGateway() as gateway`.

    The code under test may use any event loop, or none, and may block: the gateway goes on. Every method may be called
    from any thread.

    Args:
        settings: as for `Gateway`.

    Raises:
        InvalidInputError: for a setting out of range.
    """

    def __init__(self, **settings: Any) -> None:
        self._record: Final[list[RecordedCall]] = []
        self._gateway: Final = Gateway(**settings, _watch=self._record.append)
        self._contexts = self._gateway
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None

    def __repr__(self) -> str:
        return f"Recording{self._gateway!r}"

    # --- start and end

    def start(self) -> None:
        """Listen.

        Raises:
            SessionError: the gateway is running.
            APIConnectionError: the address cannot be listened on.
        """
        if self._running is not None:
            raise SessionError("the gateway is running already")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._serve, args=(loop,), name="ctxcache-gateway", daemon=True)
        thread.start()
        self._running = loop, thread
        try:
            _wait(loop, self._gateway.start())
        except BaseException:
            self._end(loop, thread)
            raise

    def close(self) -> None:
        """Stop at once: connections are cut. The record stays. May be repeated."""
        if self._running is not None:
            loop, thread = self._running
            _wait(loop, self._gateway.aclose())
            self._end(loop, thread)

    def _end(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        self._running = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, function: Callable[[], T]) -> T:
        """Call a function on the gateway's loop, where that runs, after everything that has happened there."""
        if self._running is None or self._running[1] is threading.current_thread():
            return function()

        async def call() -> T:
            return function()

        return _wait(self._running[0], call())

    # --- what a client needs

    @property
    def api_key(self) -> str:
        """The key clients must send."""
        return self._gateway.api_key

    @property
    def base_url(self) -> str:
        """The base URL for clients.

        Raises:
            SessionError: before the start.
        """
        return self._gateway.base_url

    # --- faults

    def set_fault(self, fault: Fault | str) -> SetFault:
        """Set a fault, as `Gateway.set_fault`."""
        there = self._run(lambda: self._gateway.set_fault(fault))
        return SetFault(there.fault, lambda: there.struck, lambda: self._run(there.heal))

    def heal(self) -> None:
        """End all faults."""
        self._run(self._gateway.heal)

    # --- what was called

    @property
    def calls(self) -> tuple[RecordedCall, ...]:
        """All calls of create and chat so far, in the order in which they came. Calls under way may still change."""
        return self._run(lambda: tuple(self._record))

    @property
    def contexts(self) -> tuple[str, ...]:
        """The ids of all contexts that were made, expired ones included."""
        return tuple(
            call.context_id for call in self.calls if call.endpoint == "create" and call.context_id is not None
        )

    def messages(self, context_id: str) -> tuple[Message, ...] | None:
        """Return what a context holds now, as `Gateway.messages`: what was dropped from the window is missing."""
        return self._run(lambda: self._gateway.messages(context_id))

    def transcript(self, context_id: str) -> tuple[Message, ...]:
        """Return the initial messages of a context and every turn that was stored, expired contexts included.

        Raises:
            InvalidInputError: for an id that was never given.
        """
        calls = [call for call in self.calls if call.context_id == context_id and call.stored]
        if not calls or calls[0].endpoint != "create":
            raise InvalidInputError.of("context_id", context_id, "the id of a context that this gateway made")
        messages: list[Message] = []
        for call in calls:
            messages += call.messages
            if call.endpoint == "chat":
                messages.append(assistant(call.text))
        return tuple(messages)

    # --- verdicts

    def assert_one_context(self) -> None:
        """Fail unless exactly one context was made.

        Raises:
            AssertionError: names the contexts.
        """
        made = self.contexts
        if len(made) != 1:
            raise AssertionError(f"one context must be made, got {len(made)}{': ' if made else ''}{', '.join(made)}")

    def assert_cached_at_least(self, share: float) -> None:
        """Fail unless this share of the prompt tokens of all chats, in [0, 1], came from the cache.

        Raises:
            AssertionError: tells the share.
        """
        least = checks.number("share", share, 0, 1)
        cached = cached_share(self.calls)
        if cached is None or cached < least:
            told = "no chat with a usage" if cached is None else f"{cached:.1%}"
            raise AssertionError(f"{least:.1%} of the prompt tokens must be cached, got {told}")

    def assert_no_turn_lost_or_doubled(self) -> None:
        """Fail unless every question on a session was stored, and stored once.

        A question that came again, on the same session or another, is not lost; nor is one among the messages of a
        later context. A question may be asked twice: a turn is doubled if the first answer was not sent to the end.

        Raises:
            AssertionError: names the calls.
        """
        calls = self.calls
        problems = [f"call {call.number} was not stored: {_shown(call)}" for call in lost_turns(calls)]
        for call, other in doubled_turns(calls):
            problems.append(f"calls {call.number} and {other.number} stored the same turn: {_shown(call)}")
        if problems:
            raise AssertionError("; ".join(problems))

    def findings(self, answers: Collection[str] = ()) -> list[Finding]:
        """Return what the client did wrong, by the table of `ctxcache docs testing`.

        Args:
            answers: the texts that the client took for whole answers; part of a truncated answer among them is a
                finding.
        """
        return find(self.calls, answers)

    def assert_resilient(self, *, answers: Collection[str] = (), allow: Collection[str] = ()) -> None:
        """Fail if there are findings.

        Args:
            answers: as for `findings`.
            allow: names of findings that do not matter here.

        Raises:
            AssertionError: lists the findings.
            InvalidInputError: for a name in `allow` that no finding has.
        """
        for name in allow:
            checks.one_of("allow", name, FINDINGS)
        found = [str(finding) for finding in self.findings(answers) if finding.name not in allow]
        if found:
            raise AssertionError("\n".join(found))


def _wait(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of another thread."""
    return asyncio.run_coroutine_threadsafe(work, loop).result()


def _shown(call: RecordedCall) -> str:
    text = call.messages[-1].text
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
