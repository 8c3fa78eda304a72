"""The endpoints: a request is read, the rules are asked, the engine answers."""

import asyncio
import operator
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import attrs
from aiohttp import web

from ..models import ChatRequest, ContextRequest
from ..wire import CHAT_PATH, CREATE_PATH
from .bodies import CLIENT, Bodies, Headers, Received, Routes, json_response
from .contexts import Contexts
from .engines import Engine, NewContext
from .generation import Generation
from .rules import answers, refusals
from .rules.clients import Client
from .rules.served import AcceptedChat, ServedContext
from .rules.sizes import SizedMessage
from .streaming import StreamedAnswer

__all__ = ["Endpoints", "Handling"]


@attrs.frozen(kw_only=True)
class Handling:
    """How one call is handled: as it should be, or spoiled on purpose (`faults/`).

    Attributes:
        received: called with the request that was read, before any rule is asked; may refuse.
        generation: makes the `Generation` of a chat, with the arguments of that class.
        stream: makes the response of a stream, with the arguments of aiohttp's class.
    """

    received: Callable[[ContextRequest | ChatRequest], Awaitable[None]] | None = None
    generation: Callable[..., Generation] = Generation
    stream: Callable[..., web.StreamResponse] = web.StreamResponse


_AS_IT_SHOULD_BE: Final = Handling()


class Endpoints:
    """Create, chat and the list of models. Each method answers one HTTP request.

    Args:
        contexts: the contexts and their rules.
        engine: writes the replies.
        clock: the wall clock, Unix seconds.
        bodies: reads request bodies.
        chunks_per_write: the most chunks of a stream in one write to the socket.

    Raises:
        APIStatusError: from every method, for a request that is refused and an engine that failed.
    """

    def __init__(
        self,
        contexts: Contexts,
        engine: Engine,
        clock: Callable[[], float],
        bodies: Bodies,
        chunks_per_write: int,
    ) -> None:
        self._contexts: Final = contexts
        self._engine: Final = engine
        self._clock: Final = clock
        self._bodies: Final = bodies
        self._chunks_per_write: Final = chunks_per_write
        self._calls: Final = contexts.calls(clock)
        self._generations: Final[set[Generation]] = set()
        self._waiting: Final[set[asyncio.Task[Any]]] = set()  # for the rest of a request, or for the engine to prepare

    @property
    def routes(self) -> Routes:
        """The methods and the handler of each path."""
        return {
            CREATE_PATH: (("POST",), self.create),
            CHAT_PATH: (("POST",), self.chat),
            "/models": (("GET", "HEAD"), self.models),
        }

    async def models(self, request: web.BaseRequest, headers: Headers) -> web.StreamResponse:
        """List the models."""
        return json_response(answers.models(self._contexts.table.models), headers)

    async def create(
        self, request: web.BaseRequest, headers: Headers, handling: Handling = _AS_IT_SHOULD_BE
    ) -> web.StreamResponse:
        """Create a context."""
        client = request[CLIENT]
        async with self._calls.begin(client) as count_tokens:
            with self._interruptible():
                with self._bodies.reserve() as reservation:
                    received = await self._bodies.read(ContextRequest, request, reservation)
                    if handling.received is not None:
                        await handling.received(received.request)
                    messages = await self._counted(received)
                    created = self._contexts.table.create(received.request, messages, client)
                try:
                    await self._prepare(created, client)
                    await self._contexts.keep(created, messages, client)
                    count_tokens(created.window.initial_tokens)
                except BaseException:
                    self._contexts.expire(created.id)  # no client knows the id
                    raise
        return json_response(answers.context(created), headers)

    async def _counted(self, received: Received[Any]) -> Sequence[SizedMessage]:
        """Return the messages of a request with their sizes, the tokens by the engine's count where there is one."""
        count = getattr(self._engine, "count_tokens", None)
        if count is None:
            return received.messages
        counts = await count(received.request.model, received.request.messages)
        return [
            attrs.evolve(sized, tokens=max(1, operator.index(tokens)))
            for sized, tokens in zip(received.messages, counts, strict=True)
        ]

    async def _prepare(self, created: ServedContext, client: Client) -> None:
        prepare = getattr(self._engine, "prepare", None)
        if prepare is not None:
            await prepare(
                NewContext(
                    id=created.id,
                    model=created.model,
                    mode=created.mode,
                    messages=created.window.initial,
                    tokens=created.window.initial_tokens,
                    client=client.name,
                )
            )

    async def chat(
        self, request: web.BaseRequest, headers: Headers, handling: Handling = _AS_IT_SHOULD_BE
    ) -> web.StreamResponse:
        """Chat on a context, answered whole or in a stream."""
        client = request[CLIENT]
        async with self._calls.begin(client) as count_tokens:
            with self._bodies.reserve() as reservation:
                with self._interruptible():
                    received = await self._bodies.read(ChatRequest, request, reservation)
                    if handling.received is not None:
                        await handling.received(received.request)
                    chat = await self._contexts.begin(received.request, await self._counted(received), client)
                count_tokens(chat.prompt_tokens)
                async with handling.generation(self._engine, chat, self._chunks_per_write, client.name) as generation:
                    self._generations.add(generation)
                    try:
                        if chat.request.stream is True:
                            return await self._stream(request, headers, chat, generation, handling.stream)
                        return await self._complete(headers, chat, generation)
                    finally:
                        count_tokens(chat.completion_tokens)
                        self._generations.discard(generation)
                        # Before the wait for the engine's end; no effect on a completed chat.
                        self._contexts.abandon(chat)

    def interrupt(self) -> None:
        """End every request under way because the gateway shuts down: with an event in a stream, else a 503."""
        for generation in self._generations:
            generation.interrupt(refusals.shutting_down())
        while self._waiting:
            self._waiting.pop().cancel()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let `interrupt` end the block, which raises the failure then."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._waiting or task.uncancel():
                raise  # the client left
        else:
            return
        finally:
            self._waiting.discard(task)
        raise refusals.shutting_down()

    async def _complete(self, headers: Headers, chat: AcceptedChat, generation: Generation) -> web.StreamResponse:
        while not generation.done:
            await generation.take()
        usage = generation.usage(await self._contexts.complete(chat))
        body = answers.completion(_answer_id(), int(self._clock()), chat.context.model, chat.replies, usage)
        return json_response(body, headers)

    async def _stream(
        self,
        request: web.BaseRequest,
        headers: Headers,
        chat: AcceptedChat,
        generation: Generation,
        make_response: Callable[..., web.StreamResponse],
    ) -> web.StreamResponse:
        answer = StreamedAnswer(
            request,
            headers,
            chat,
            generation,
            self._contexts,
            answer_id=_answer_id(),
            created=int(self._clock()),
            chunks_per_write=self._chunks_per_write,
            make_response=make_response,
        )
        return await answer.send()


def _answer_id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"
