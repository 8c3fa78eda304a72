"""The same relay as a Starlette service.

    uvicorn relay_starlette:app

The answer is opened before the response begins, so an error until then is an HTTP error and not an event.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from ctxcache import AsyncSession, CtxCacheError, Prefix, system


@asynccontextmanager
async def one_session(app: Starlette) -> AsyncGenerator[None, None]:
    """Share one session, so one pool of connections, between all requests."""
    async with AsyncSession() as session:
        manual = [system("The warranty lasts two years.")]
        app.state.manual = Prefix(session, model="Doubao-1.5-pro-32k", messages=manual)
        yield


async def ask(request: Request) -> StreamingResponse:
    """Answer one question."""
    manual: Prefix = request.app.state.manual
    stream = manual.stream(str((await request.json())["question"]))
    try:
        await stream.open()
    except CtxCacheError as error:
        raise HTTPException(502, error.message) from error
    return StreamingResponse(stream.sse(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


app = Starlette(routes=[Route("/ask", ask, methods=["POST"])], lifespan=one_session)
