"""The same relay as a FastAPI service, and a route that answers at once.

    uvicorn relay_fastapi:app

The answer is opened before the response begins, so an error until then is an HTTP error and not an event.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from ctxcache import AsyncSession, CtxCacheError, Prefix, system


@asynccontextmanager
async def one_session(app: FastAPI) -> AsyncGenerator[None, None]:
    """Share one session, so one pool of connections, between all requests."""
    async with AsyncSession() as session:
        manual = [system("The warranty lasts two years.")]
        app.state.manual = Prefix(session, model="Doubao-1.5-pro-32k", messages=manual)
        yield


app = FastAPI(lifespan=one_session)


@app.post("/ask")
async def ask(request: Request, question: Annotated[str, Body(embed=True)]) -> StreamingResponse:
    """Answer one question, piece by piece."""
    manual: Prefix = request.app.state.manual
    stream = manual.stream(question)
    try:
        await stream.open()
    except CtxCacheError as error:
        raise HTTPException(502, error.message) from error
    return StreamingResponse(stream.sse(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@app.post("/answer")
async def answer(request: Request, question: Annotated[str, Body(embed=True)]) -> dict[str, Any]:
    """Answer one question at once."""
    manual: Prefix = request.app.state.manual
    reply = await manual.ask(question)
    return reply.to_dict()
