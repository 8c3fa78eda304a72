"""A relay of ten lines on bare aiohttp, the floor: `python -m benchmarks.relays.bare UPSTREAM PORT`."""

import importlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp import web

UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", aiohttp.ClientSession)


async def relay(request: web.Request) -> web.StreamResponse:
    body, headers = await request.read(), {"Content-Type": request.content_type}
    async with request.app[SESSION].post(request.app[UPSTREAM] + request.path, data=body, headers=headers) as answer:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        await response.write_eof()
        return response


async def session(app: web.Application) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as made:
        app[SESSION] = made
        yield


def main() -> None:
    """Relay until a signal comes; with a third argument, on uvloop."""
    upstream, port, *uvloop = sys.argv[1:]
    app = web.Application()
    app[UPSTREAM] = upstream
    app.cleanup_ctx.append(session)
    app.router.add_post("/{path:.*}", relay)
    loop = importlib.import_module("uvloop").new_event_loop() if uvloop else None
    options: Any = {"print": None, "access_log": None, "loop": loop, "backlog": 4096}
    web.run_app(app, host="127.0.0.1", port=int(port), handler_cancellation=True, **options)
