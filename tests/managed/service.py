"""A service that makes contexts, counts what it is asked, and lets contexts expire at awkward moments.

It keeps time by the test's clock, and ends a context that was not used for its ttl, as the real one does. Beyond that
it does what it is told::

    service.fate("gone")          # the next chat finds its context gone, before the call
    service.fate("late")          # ... between the head and the first chunk: an error event in a stream
    service.fate("middle")        # ... after the first chunk
    service.fate("fine", "busy", "broken", "cut")   # nothing, a 429, a 500, a stream that ends after its first chunk
    service.stillborn = 1         # the id that the next create returns is already gone
    service.retry_after = "30"    # what a 429 asks
    service.ttls.append(3)        # what the next create says of its ttl
    service.create_errors.append(500)
    service.creating.clear()      # creates wait until it is set
    service.spare()               # all is well from now on
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

GONE = {"error": {"code": "NotFound.ContextNotFound", "message": "no such context", "param": "", "type": ""}}
REFUSALS = {"busy": 429, "broken": 500, "forbidden": 401}
ENDS = frozenset({"gone", "late", "middle"})
WORDS = ("Once", " upon", " a time")
TEXT = "".join(WORDS)


class Service:
    """The server.

    Attributes:
        creates: the bodies of the creates, in order; refused ones, too.
        chats: the bodies of the chats, in order.
        posts: how many chats came for each context.
        alive: the contexts that are there, and when each will be gone.
        cached: how many of the 110 prompt tokens of a chat are cached.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.creates: list[dict[str, Any]] = []
        self.chats: list[dict[str, Any]] = []
        self.posts: Counter[str] = Counter()
        self.alive: dict[str, float] = {}
        self.cached = 100
        self.retry_after: str | None = None
        self.ttls: deque[int | None] = deque()
        self.create_errors: deque[int] = deque()
        self.stillborn: float = 0
        self.creating = asyncio.Event()
        self.creating.set()
        self.chatting = asyncio.Event()
        self.chatting.set()
        self.streaming = asyncio.Event()  # after the first chunk
        self.streaming.set()
        self._fates: deque[str] = deque()
        self._ttl: dict[str, float] = {}

    def fate(self, *fates: str) -> None:
        """Say what becomes of the next chats, see above."""
        self._fates.extend(fates)

    def spare(self) -> None:
        """Drop all fates that have not come yet."""
        self._fates.clear()
        self.stillborn = 0

    def expire(self) -> None:
        """End all contexts."""
        self.alive.clear()

    @property
    def waiting(self) -> int:
        """Chats that have come and are not answered yet."""
        return self._waiting

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._waiting = 0
        app = web.Application()
        app.router.add_post("/v1/context/create", self._create)
        app.router.add_post("/v1/context/chat/completions", self._chat)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=2000)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for gate in (self.creating, self.chatting, self.streaming):
            gate.set()
        await self._runner.cleanup()

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.creates.append(body)
        context_id = f"ctx-{len(self.creates)}"
        await self.creating.wait()
        if self.create_errors:
            status = self.create_errors.popleft()
            return web.json_response({"error": {"code": "", "message": "no"}}, status=status)
        ttl = self.ttls.popleft() if self.ttls else body.get("ttl", 86400)
        self._ttl[context_id] = ttl or 86400
        if self.stillborn > 0:
            self.stillborn -= 1
        else:
            self._use(context_id)
        said = {} if ttl is None else {"ttl": ttl}
        usage = {"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 100}
        return web.json_response({"id": context_id, "mode": body["mode"], "usage": usage, **said})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        context_id = body["context_id"]
        self.chats.append(body)
        self.posts[context_id] += 1
        fate = self._fates.popleft() if self._fates else "fine"
        self._waiting += 1
        try:
            await self.chatting.wait()
        finally:
            self._waiting -= 1
        if fate in REFUSALS:
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return web.json_response({"error": {"code": "", "message": "no"}}, status=REFUSALS[fate], headers=headers)
        until = self.alive.get(context_id, 0.0)
        if fate in ENDS or until <= self.clock():
            self.alive.pop(context_id, None)
        if fate == "gone" or until <= self.clock():
            return web.json_response(GONE, status=404)
        if fate not in ENDS:
            self._use(context_id)
        return await self._stream(request, fate) if body.get("stream") else web.json_response(self._completion())

    def _use(self, context_id: str) -> None:
        self.alive[context_id] = self.clock() + self._ttl[context_id]

    @property
    def _usage(self) -> dict[str, Any]:
        cached = {"cached_tokens": self.cached}
        return {"prompt_tokens": 110, "completion_tokens": 5, "total_tokens": 115, "prompt_tokens_details": cached}

    def _completion(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": TEXT}
        return {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": self._usage}

    async def _stream(self, request: web.Request, fate: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if fate == "late":
            await response.write(_event(GONE))
            return response
        for number, word in enumerate(WORDS):
            if number == 1:
                await self.streaming.wait()
                if fate == "middle":
                    await response.write(_event(GONE))
                    return response
                if fate == "cut":
                    return response
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": "stop" if word == WORDS[-1] else None}
            await response.write(_event({"id": "c", "choices": [choice]}))
        await response.write(_event({"id": "c", "choices": [], "usage": self._usage}) + b"data: [DONE]\n\n")
        return response


def _event(data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
