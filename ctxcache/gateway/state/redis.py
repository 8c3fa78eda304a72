"""A state in Redis or Valkey, for several gateways.

A session is claimed with a random token for a few seconds, renewed while the call runs. A turn is appended only under
its claim, so a gateway that was held up past the end of its claim stores nothing (a fencing token). Idle timers of
prefixes are noted once a second, all in one script: a chat on a prefix that is in memory costs no round trip.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

from ... import checks
from ...errors import APIStatusError, SessionError
from ...redis_client import connect
from ..rules.clients import KeyLimits
from ..rules.records import ContextRecord, decode_message, decode_settings, encode_message, encode_settings
from ..rules.refusals import (
    full,
    memory_full,
    not_kept,
    perhaps_kept,
    too_many_calls,
    too_many_requests,
    too_many_tokens,
    unreachable,
)
from ..rules.sizes import SizedMessage, total_memory
from . import scripts
from .protocol import Claim

__all__ = ["RedisState"]

_log: Final = logging.getLogger("ctxcache.gateway")
_CONNECTIONS: Final = 16
_STEP_SECONDS: Final = 2.0  # to connect, or to answer
_WAIT_SECONDS: Final = 5.0  # for a connection
_LEASE_SECONDS: Final = 5.0
_RENEWALS: Final = 3  # within a lease
_FEW: Final = 200  # messages, decoded in 3 ms; more of them in a thread
_RETRY_SECONDS: Final = 0.2
_TOUCH_SECONDS: Final = 1.0
_PREFIX: Final = "ctxcache-gateway:"


class RedisState:
    """Keeps the contexts of several gateways in a Redis or Valkey server.

    What is told as kept is as safe as the server: for a server that is restarted, set `appendonly yes`. All gateways
    have the same models, and clocks that agree within a second or two.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, in redis-py's form. Appears in no repr or error.
        prefix: the beginning of all keys; gateways with one prefix share contexts.
        contexts: the most contexts at once, of all gateways.
        memory_bytes: the most memory for the messages of all contexts.
        clock: the wall clock of the gateway, Unix seconds.

    Raises:
        InvalidInputError: the URL is invalid, or redis is not installed (extra `redis`).
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = _PREFIX,
        contexts: int = 100_000,
        memory_bytes: int = 512 * 1024 * 1024,
        clock: Callable[[], float] = time.time,
        _lease_seconds: float = _LEASE_SECONDS,
        _step_seconds: float = _STEP_SECONDS,
        _touch_seconds: float = _TOUCH_SECONDS,
    ) -> None:
        self._client: Final = connect(url, _CONNECTIONS, _step_seconds, _WAIT_SECONDS)
        self._prefix: Final = checks.string("prefix", prefix)
        self._contexts: Final = contexts
        self._memory_bytes: Final = memory_bytes
        self._clock: Final = clock
        self._lease: Final = int(_lease_seconds * 1000)
        self._pause: Final = min(_lease_seconds / _RENEWALS, _touch_seconds)
        self._claims: Final[dict[str, str]] = {}  # the token of each session that is claimed here
        self._scripts: Final[dict[str, Any]] = {}
        self._deadlines: dict[str, float] = {}
        self._calls: Final[dict[str, str]] = {}  # the owner of each call that was admitted here, by the token
        self._ended_calls: list[tuple[str, str, int]] = []
        self._releases: Final[dict[str, asyncio.Task[None]]] = {}
        self._aside: Final[set[asyncio.Task[Any]]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RedisState {self._prefix!r}>"

    async def start(self) -> Collection[ContextRecord]:
        """Reach the server; no context is needed in memory.

        Raises:
            SessionError: the server cannot be reached.
        """
        try:
            await self._run(scripts.TOUCH)
        except APIStatusError as error:
            problem = error.message
        else:
            self._keeper = asyncio.create_task(self._keep())
            return ()
        raise SessionError(problem)

    async def aclose(self) -> None:
        """Note the idle timers that wait, end the claims, and close the connections."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
            for context_id in tuple(self._claims):
                self.release(context_id, None)
            await asyncio.gather(*self._aside, return_exceptions=True)
            await self._note_deadlines()
            await self._note_calls()
        await self._client.connection_pool.disconnect()

    # --- contexts

    async def create(self, record: ContextRecord, limits: KeyLimits) -> None:
        """Keep a new context."""
        token, memory = secrets.token_hex(8), total_memory(record.initial)
        settings, messages = encode_settings(record), map(_encode, record.initial)
        bounds = self._contexts, self._memory_bytes, record.owner, _told(limits.contexts), _told(limits.memory_bytes)
        refused = await self._run(
            scripts.CREATE, record.id, token, settings, repr(record.deadline), memory, *bounds, *messages
        )
        if refused == b"contexts of key":
            raise full(limits.contexts or 0, of_key=True)
        if refused == b"memory of key":
            raise memory_full(limits.memory_bytes or 0, of_key=True)
        if refused == b"contexts":
            raise full(self._contexts)
        if refused == b"memory":
            raise memory_full(self._memory_bytes)
        if refused:
            raise not_kept("another gateway has given the same id")

    async def find(self, context_id: str, owner: str) -> ContextRecord | None:
        """Return a context; None if unknown, expired, or of another owner, in the same time."""
        found = await self._run(scripts.FIND, context_id, owner)
        if found is None:
            return None
        settings, deadline, stored, initial, history = found
        read = partial(_read, context_id, settings, float(deadline), int(stored), initial, history)
        return read() if len(initial) + len(history) <= _FEW else await asyncio.to_thread(read)

    def forget(self, context_id: str) -> None:
        """Drop a context, soon."""
        self._deadlines.pop(context_id, None)
        self._run_aside(self._run(scripts.FORGET, context_id))

    # --- calls on sessions

    async def claim(self, context_id: str, known: int, memory: int, most: int | None) -> Claim | None:
        """Claim a session, until `append` or `release`."""
        token = secrets.token_hex(8)
        if context_id in self._releases:  # of the call before, on its way
            await asyncio.wait([self._releases[context_id]])
        try:
            claimed = await self._run(scripts.CLAIM, context_id, token, self._lease, known, memory, _told(most))
        except BaseException:
            self._release(context_id, token, "")  # it may have been claimed
            raise
        if claimed is None:
            return None
        if claimed[0] == b"busy":
            return Claim(busy=True)
        if claimed[0] == b"memory":
            raise memory_full(most or 0, of_key=True)
        self._claims[context_id] = token
        first, stored, deadline, messages = claimed
        return Claim(
            messages=[_decode(message) for message in messages],
            first=int(first),
            stored=int(stored),
            deadline=float(deadline),
        )

    async def append(self, context_id: str, turn: Sequence[SizedMessage], dropped: int, deadline: float) -> None:
        """Keep a completed turn, whole or not at all, then drop the oldest messages of the history.

        Raises:
            APIStatusError: 503 where the claim has ended, and nothing is stored; 500 where the server did not answer,
                and the turn may be stored.
        """
        messages = [_encode(sized) for sized in turn]
        kept = await self._append(context_id, dropped, repr(deadline), *messages)
        self._claims.pop(context_id, None)
        if not kept:
            raise not_kept("the session was taken over by another gateway")

    async def _append(self, context_id: str, *values: str | bytes | int) -> bool:
        """Append, and try again while the claim may still hold, since a server that restarts is back soon."""
        from redis import exceptions

        token = self._claims.get(context_id, "")
        loop = asyncio.get_running_loop()
        end = loop.time() + self._lease / 1000
        while True:
            try:
                return bool(await self._evaluate(scripts.APPEND, context_id, token, *values))
            except (exceptions.ConnectionError, exceptions.TimeoutError, OSError):
                if loop.time() >= end:
                    break
            except exceptions.RedisError as error:  # such as no memory, or a replica that takes no writes
                self.release(context_id, None)
                problem = type(error).__name__
                raise not_kept(problem) from None
            await asyncio.sleep(_RETRY_SECONDS)
        self.release(context_id, None)
        raise perhaps_kept()

    def release(self, context_id: str, deadline: float | None) -> None:
        """Take note that a call has ended."""
        token = self._claims.pop(context_id, None)
        if token is not None:
            self._release(context_id, token, "" if deadline is None else repr(deadline))
        elif deadline is not None:
            self._deadlines[context_id] = deadline

    def _release(self, context_id: str, token: str, deadline: str) -> None:
        task = self._releases[context_id] = self._run_aside(self._run(scripts.RELEASE, context_id, token, deadline))

        def forget(_: object) -> None:
            if self._releases.get(context_id) is task:
                del self._releases[context_id]

        task.add_done_callback(forget)

    # --- calls of keys with limits

    async def admit(self, owner: str, limits: KeyLimits) -> str:
        """Count a call of a key that begins; return a token for `end`. Tells of calls that have ended, too."""
        token = secrets.token_hex(8)
        most = limits.calls, limits.requests_per_minute, limits.tokens_per_minute
        refused = await self._admit(owner, token, [_told(value) for value in most], ())
        if not refused:
            self._calls[token] = owner
            return token
        kind, wait = refused[0], float(refused[1])
        if kind == b"calls":
            raise too_many_calls(limits.calls or 0)
        if kind == b"requests":
            raise too_many_requests(limits.requests_per_minute or 0, wait)
        raise too_many_tokens(limits.tokens_per_minute or 0, wait)

    def end(self, owner: str, token: str, tokens: int) -> None:
        """Count a call that ends, with the next that begins, or in a second."""
        self._calls.pop(token, None)
        self._ended_calls.append((owner, token, tokens))

    async def _admit(self, owner: str, token: str, most: Sequence[str], renewed: Sequence[str]) -> Any:
        ended, self._ended_calls = self._ended_calls, []
        told = [value for call in ended for value in call]
        try:
            return await self._run(scripts.ADMIT, owner, token, self._lease, *most, len(ended), *told, *renewed)
        except BaseException:
            self._ended_calls = ended + self._ended_calls
            raise

    async def _note_calls(self) -> None:
        """Tell of the calls that have ended, and renew the others."""
        renewed = [text for token, owner in self._calls.items() for text in (owner, token)]
        if not renewed and not self._ended_calls:
            return
        try:
            await self._admit("", "", ("", "", ""), renewed)
        except APIStatusError as error:
            _log.warning("calls are noted later: %s", error.message)

    # --- in the background

    async def _keep(self) -> None:
        """Renew the claims and note the idle timers, until cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            await self._renew()
            await self._note_deadlines()
            await self._note_calls()

    async def _renew(self) -> None:
        pairs = [text for claim in self._claims.items() for text in claim]
        if not pairs:
            return
        try:
            await self._run(scripts.RENEW, "", self._lease, *pairs)
        except APIStatusError as error:
            _log.warning("claims of sessions are not renewed: %s", error.message)

    async def _note_deadlines(self) -> None:
        deadlines, self._deadlines = self._deadlines, {}
        if not deadlines:
            return
        pairs = [text for context_id, deadline in deadlines.items() for text in (context_id, repr(deadline))]
        try:
            await self._run(scripts.TOUCH, "", *pairs)
        except APIStatusError as error:
            _log.warning("idle timers are noted later: %s", error.message)
            self._deadlines = {**deadlines, **self._deadlines}

    def _run_aside(self, work: Awaitable[Any]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except APIStatusError as error:
                _log.warning("%s", error.message)  # a claim ends by itself, a context by its timer

        task = asyncio.create_task(run())
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)
        return task

    async def _run(self, script: str, context_id: str = "", *values: str | bytes | float) -> Any:
        """Run a script.

        Raises:
            APIStatusError: the server cannot be used (503).
        """
        from redis.exceptions import RedisError

        try:
            return await self._evaluate(script, context_id, *values)
        except (RedisError, OSError, TimeoutError) as error:
            problem = type(error).__name__  # the text may show where the server is
        raise unreachable(problem)

    async def _evaluate(self, script: str, context_id: str, *values: str | bytes | float) -> Any:
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script)
        return await self._scripts[script](args=(self._prefix, context_id, repr(self._clock()), *values))


def _read(
    context_id: str, settings: bytes, deadline: float, stored: int, initial: list[bytes], history: list[bytes]
) -> ContextRecord:
    return ContextRecord(
        id=context_id,
        **decode_settings(settings),
        initial=[_decode(message) for message in initial],
        history=[_decode(message) for message in history],
        deadline=deadline,
        stored=stored,
    )


def _encode(sized: SizedMessage) -> bytes:
    return b"%d %b" % (sized.memory, encode_message(sized))


def _told(most: int | None) -> str:
    return "" if most is None else str(most)


def _decode(data: bytes) -> SizedMessage:
    return decode_message(data.partition(b" ")[2])
