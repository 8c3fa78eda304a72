"""The same relay as a FastAPI service.

    uvicorn relay_fastapi:app

The answer is opened before the response begins, so an error until then is an HTTP error and not an event.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse

from ctxcache import AsyncSession, CtxCacheError, ManagedStream, Prefix, system
from ctxcache.sse import ServerSentEvent, encode


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
    """Answer one question."""
    manual: Prefix = request.app.state.manual
    stream = manual.stream(question)
    try:
        await stream.open()
    except CtxCacheError as error:
        raise HTTPException(502, error.message) from error
    return StreamingResponse(events(stream), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def events(stream: ManagedStream) -> AsyncIterator[bytes]:
    """Encode an answer; Starlette cancels this when the reader leaves, which closes the stream."""
    try:
        async with stream:
            async for text in stream.text():
                yield encode([ServerSentEvent(json.dumps(text))])
        yield encode([ServerSentEvent("[DONE]")])
    except CtxCacheError as error:
        yield encode([ServerSentEvent(json.dumps(error.message), event="error")])
