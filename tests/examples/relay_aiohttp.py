"""An aiohttp service that relays streamed answers to a browser as server-sent events.

    curl -N -d '{"question": "How long is the warranty?"}' http://127.0.0.1:8080/ask

A reader who leaves ends the handler, and with it the stream: nothing goes on in the background.
"""

import json
from collections.abc import AsyncIterator

from aiohttp import web

from ctxcache import AsyncSession, CtxCacheError, Prefix, system
from ctxcache.sse import ServerSentEvent, encode

MANUAL = web.AppKey("MANUAL", Prefix)


async def one_session(app: web.Application) -> AsyncIterator[None]:
    """Share one session, so one pool of connections, between all requests."""
    async with AsyncSession() as session:
        app[MANUAL] = Prefix(session, model="Doubao-1.5-pro-32k", messages=[system("The warranty lasts two years.")])
        yield


async def ask(request: web.Request) -> web.StreamResponse:
    """Answer one question."""
    question = str((await request.json())["question"])
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    try:
        async with request.app[MANUAL].stream(question) as stream:
            async for text in stream.text():
                await response.write(encode([ServerSentEvent(json.dumps(text))]))
        last = ServerSentEvent("[DONE]")
    except CtxCacheError as error:  # the status 200 has left: the reader learns of the failure by an event
        last = ServerSentEvent(json.dumps(error.message), event="error")
    await response.write(encode([last]))
    return response


def make_app() -> web.Application:
    """Make the service."""
    app = web.Application(handler_args={"handler_cancellation": True})
    app.cleanup_ctx.append(one_session)
    app.router.add_post("/ask", ask)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
