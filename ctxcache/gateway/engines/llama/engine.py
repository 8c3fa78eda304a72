"""The engine: contexts in the slots of a llama.cpp server."""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final, Self
from weakref import WeakValueDictionary

import aiohttp
import attrs

from .... import checks
from ....errors import BadRequestError, InternalServerError, InvalidInputError, SessionError
from ....models import Message
from ...rules.pieces import Piece
from ...rules.refusals import engine_failed
from ...rules.sizes import tool_call_texts
from ...rules.tokens import count_tokens
from ..protocol import NewContext, Prompt
from . import chat
from .files import SlotFiles
from .gguf import context_length
from .server import COMMAND, LlamaServer, ServerSettings
from .slots import Slot
from .supervisor import Supervision, Supervisor

__all__ = ["LlamaEngine"]

_log: Final = logging.getLogger("ctxcache.gateway")
_WINDOW: Final = 8192
_MAX_SLOTS: Final = 64
_MAX_THREADS: Final = 1024
_CACHE_BYTES: Final = 4 * 1024**3
_TEMPLATE_TOKENS: Final = 4  # around a message, where they cannot be measured
_GONE_SECONDS: Final = 2.0  # within which the end of a server that gave no answer is noticed
_TIMES: Final = Supervision()


@attrs.define(eq=False)
class _Running:
    """What lives from `start` to `aclose`."""

    supervisor: Supervisor
    files: SlotFiles
    http: aiohttp.ClientSession


class LlamaEngine:
    """Answers with a model of your own, by llama.cpp in a child process (extra `llama`).

    A context's tokens are computed once, at the create, and saved to a file; a call on the context restores them where
    they are not in memory, so several questions at once over one prefix are all answered from the cache. The history of
    a session stays computed from turn to turn. `usage` is the model's own count, cached tokens included.

    The child listens on loopback, with a key of its own. One that ends or hangs is replaced, answers under way fail
    with an error, and the saved contexts are still there for the next. The child ends with this process.

    Started and closed by the gateway: `Gateway(engine=engine, models=engine.models)`.

    Args:
        model: the model's file, in the GGUF format.
        name: the name of the model for clients; None is the file's name without `.gguf`.
        slots: how many calls are computed at once; more of them wait. Each slot takes memory for a whole window.
        window: the context window in tokens; None is the model's own, but at most 8,192. A larger window takes more
            memory, some 20 KB to 200 KB a token and slot.
        threads: threads for the computation; None leaves the number to llama.cpp.
        cache_bytes: the most bytes of saved contexts on the disk. Those used longest ago go first, and are computed
            again when they are used.
        cache_dir: the folder in which a private folder for saved contexts is made, which ends with the engine; None is
            the system's folder for temporary files.
        keep_cache: whether that folder stays, for a gateway whose state outlives the process: the next run with the
            same model, slots and window uses the files of the contexts that live still.
        warm: whether a create computes the context's tokens; otherwise the first call does.

    Attributes:
        path: the model's file.
        models: the name of the model with its window, for `Gateway(models=…)`.

    Raises:
        InvalidInputError: for a file that is no model, and an argument out of range.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        name: str | None = None,
        slots: int = 4,
        window: int | None = None,
        threads: int | None = None,
        cache_bytes: int = _CACHE_BYTES,
        cache_dir: str | os.PathLike[str] | None = None,
        keep_cache: bool = False,
        warm: bool = True,
        _times: Supervision = _TIMES,
        _command: Sequence[str] = COMMAND,
    ) -> None:
        path = _path("model", model)
        trained = context_length(path)
        window = min(_WINDOW, trained) if window is None else checks.whole("window", window, 2, trained)
        self._settings: Final = ServerSettings(
            model=path.resolve(),
            name=path.stem if name is None else checks.text("name", name),
            slots=checks.whole("slots", slots, 1, _MAX_SLOTS),
            window=window,
            threads=0 if threads is None else checks.whole("threads", threads, 1, _MAX_THREADS),
        )
        self._cache_bytes: Final = checks.whole("cache_bytes", cache_bytes, 0)
        self._cache_dir: Final = None if cache_dir is None else _path("cache_dir", cache_dir)
        self._kept: Final = _kept_name(self._settings) if checks.flag("keep_cache", keep_cache) else None
        self._warm: Final = checks.flag("warm", warm)
        self._times: Final = _times
        self._command: Final = _command
        self._modes: Final[dict[str, str]] = {}  # of the contexts that live
        self._loading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._running: _Running | None = None
        self._template_tokens = _TEMPLATE_TOKENS
        self.path: Final = path
        self.models: Final = {self._settings.name: window}

    def __repr__(self) -> str:
        return f"LlamaEngine({str(self.path)!r}{', running' if self._running else ''})"

    # --- start and end

    async def start(self) -> None:
        """Start the child and load the model. No effect on an engine that is running.

        Raises:
            InvalidInputError: xllamacpp is not installed, or `cache_dir` cannot be used.
            APIConnectionError: llama.cpp cannot load the model.
        """
        if self._running is not None:
            return
        files = _files(self._cache_bytes, self._cache_dir, self._kept)
        http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=aiohttp.ClientTimeout()
        )
        settings = attrs.evolve(self._settings, folder=files.folder)
        supervisor = Supervisor(partial(LlamaServer.start, settings, http, self._command), self._times)
        running = self._running = _Running(supervisor, files, http)
        try:
            server = await supervisor.start()
            with suppress(ConnectionError):
                self._template_tokens = await server.measure_template()
        except BaseException:
            await self._end(running)
            raise

    async def aclose(self) -> None:
        """End the child and remove the saved contexts. May be repeated."""
        if self._running is not None:
            await self._end(self._running)

    async def _end(self, running: _Running) -> None:
        self._running = None
        await running.supervisor.aclose()
        await running.http.close()
        await asyncio.to_thread(running.files.close)  # gigabytes take a while

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- contexts

    async def count_tokens(self, model: str, messages: Sequence[Message]) -> list[int]:
        """Count the tokens of each message, with those that the model's template puts around.

        Raises:
            APIStatusError: there is no server (503).
        """
        server = await self._alive().supervisor.server()
        texts = [[message.text, *tool_call_texts(message.extra.get("tool_calls"))] for message in messages]
        try:
            counts = iter(await server.count_tokens(list(chain.from_iterable(texts))))
        except ConnectionError:  # an estimate lets the call begin on the next server
            counts = map(count_tokens, chain.from_iterable(texts))
        return [self._template_tokens + sum(islice(counts, len(parts))) for parts in texts]

    async def prepare(self, context: NewContext) -> None:
        """Compute and save the tokens of a new context.

        Raises:
            APIStatusError: the context does not fit the window, by the model's own count.
        """
        self._modes[context.id] = context.mode
        if not self._warm:
            return
        try:
            server = await self._alive().supervisor.server()
            async with server.slots.take(context.id) as slot:
                await self._load(server, slot, context.id, context.messages)
        except (ConnectionError, InternalServerError) as error:
            _log.warning("a context stays cold: %s", error)

    def resume(self, modes: Mapping[str, str]) -> None:
        """Take up the contexts of an earlier run, and remove what is saved of others."""
        self._modes.update(modes)
        self._alive().files.keep_only(modes)

    def forget(self, context_id: str) -> None:
        """Remove what is saved of a context."""
        self._modes.pop(context_id, None)
        if self._running is not None:
            self._running.files.forget(context_id)
            if self._running.supervisor.running is not None:
                self._running.supervisor.running.slots.forget(context_id)

    # --- chats

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        """Write a reply.

        A server that ends before the first piece is no failure: the reply is begun again on the next server.

        Raises:
            APIStatusError: the request does not fit the window, or was refused; the server ended in mid-answer.
        """
        supervisor = self._alive().supervisor
        self._modes.setdefault(prompt.request.context_id, "session")
        lost: LlamaServer | None = None
        while True:
            server = await supervisor.server(after=lost)
            begun = False
            try:
                async with aclosing(self._generate(server, prompt)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
            except ConnectionError as error:
                _log.warning("an answer broke off: %s", error)
                if begun or lost is not None or not await _has_ended(server):
                    raise engine_failed() from None
                lost = server
            else:
                return

    async def _generate(self, server: LlamaServer, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        context_id = prompt.request.context_id
        async with server.slots.take(context_id) as slot:
            await self._load(server, slot, context_id, prompt.context)
            grows = self._modes.get(context_id) == "session"
            slot.unsaved = grows and prompt.index == 0
            try:
                async with aclosing(chat.generate(server, slot.index, prompt)) as pieces:
                    async for piece in pieces:
                        yield piece
            finally:
                if grows and prompt.index:
                    slot.hold(None)  # the first of several replies is the one that the history goes on with

    async def _load(self, server: LlamaServer, slot: Slot, context_id: str, messages: tuple[Message, ...]) -> None:
        """Bring the tokens of a context into a slot: they are there, or in a file, or are computed and saved.

        Concurrent calls on a context that is nowhere compute the tokens once.
        """
        if slot.context_id == context_id:
            return
        if slot.unsaved and slot.context_id in self._modes:
            await self._save(server, slot, slot.context_id)
        slot.hold(None)
        lock = self._loading.setdefault(context_id, asyncio.Lock())
        async with lock:
            if not await self._restore(server, slot, context_id) and await _computed(server, slot, messages):
                await self._save(server, slot, context_id)
        slot.hold(context_id)

    async def _restore(self, server: LlamaServer, slot: Slot, context_id: str) -> bool:
        files = self._alive().files
        name = files.find(context_id)
        if name is None:
            return False
        restored = await server.restore(slot.index, name)
        if not restored:
            files.forget(context_id)
        return restored

    async def _save(self, server: LlamaServer, slot: Slot, context_id: str) -> None:
        files = self._alive().files
        name, saved = files.new_name(), False
        try:
            saved = await server.save(slot.index, name)
        finally:
            if saved and context_id in self._modes:
                files.add(context_id, name)
            else:
                files.discard(name)

    def _alive(self) -> _Running:
        if self._running is None:
            raise SessionError("the engine is not running: a gateway starts it, or `async with`")
        return self._running


async def _computed(server: LlamaServer, slot: Slot, messages: Sequence[Message]) -> bool:
    """Compute a context in a slot; return False where the model's template wants other messages.

    Raises:
        APIStatusError: the context does not fit the window.
    """
    try:
        await chat.warm(server, slot.index, messages)
    except BadRequestError as refusal:
        if refusal.code == "OutofContextError":
            raise
        _log.info("a context stays cold: %s", refusal)  # the chat itself is still to be judged
        return False
    return True


async def _has_ended(server: LlamaServer) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(_GONE_SECONDS):
            await server.ended()
            return True
    return False


def _path(field: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise InvalidInputError.of(field, value, "a path")
    return Path(value)


def _kept_name(settings: ServerSettings) -> str:
    """Name the folder that is kept: files fit one model, and one number of slots, alone."""
    status = settings.model.stat()
    facts = settings.model, status.st_size, status.st_mtime_ns, settings.slots, settings.window
    return f"{settings.model.stem}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _files(limit: int, parent: Path | None, kept: str | None) -> SlotFiles:
    try:
        return SlotFiles(limit, parent, kept)
    except OSError as error:
        problem = error.strerror or str(error)
    raise InvalidInputError(
        f"cache_dir must be a folder to write in, got {str(parent)!r}: {problem}", field="cache_dir"
    )
