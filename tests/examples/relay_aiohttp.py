"""An aiohttp service that relays streamed answers to a browser as server-sent events.

    curl -N -d '{"question": "How long is the warranty?"}' http://127.0.0.1:8080/ask

A reader who leaves ends the handler, and with it the stream: nothing goes on in the background.
"""

from collections.abc import AsyncIterator

from aiohttp import web

from ctxcache import AsyncSession, CtxCacheError, Prefix, system

MANUAL = web.AppKey("MANUAL", Prefix)


async def one_session(app: web.Application) -> AsyncIterator[None]:
    """Share one session, so one pool of connections, between all requests."""
    async with AsyncSession() as session:
        app[MANUAL] = Prefix(session, model="Doubao-1.5-pro-32k", messages=[system("The warranty lasts two years.")])
        yield


async def ask(request: web.Request) -> web.StreamResponse:
    """Answer one question."""
    stream = request.app[MANUAL].stream(str((await request.json())["question"]))
    try:
        await stream.open()  # an error until here is an HTTP error, not an event
    except CtxCacheError as error:
        raise web.HTTPBadGateway(text=error.message) from error
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    async with stream:
        await response.prepare(request)
        async for data in stream.sse(heartbeat=15):
            await response.write(data)
    return response


def make_app() -> web.Application:
    """Make the service."""
    app = web.Application(handler_args={"handler_cancellation": True})
    app.cleanup_ctx.append(one_session)
    app.router.add_post("/ask", ask)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="127.0.0.1", port=8080)
