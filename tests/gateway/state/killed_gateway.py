"""A gateway with a state, in a process of its own: prints its URL, and serves until it is killed."""

import asyncio
import json
import resource
import sys
from typing import Any

from ctxcache.gateway import Gateway, ScriptedEngine
from ctxcache.gateway.state import RedisState


async def serve(state: str, file_bytes: int = 0, lease: float = 5.0, **script: Any) -> None:
    """Serve.

    Args:
        state: the path of a file, or the URL of a server.
        file_bytes: how large files may grow; 0 is any size.
        lease: how long a claim lasts that is not renewed, in seconds.
        script: options of the scripted engine.
    """
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    kept = RedisState(state, _lease_seconds=lease) if state.startswith("redis:") else state
    engine = ScriptedEngine(**{"pieces_per_second": 0, "first_token_delay": 0, "length": 3, **script})
    async with Gateway(state=kept, engine=engine, api_key="sk-of-the-test") as gateway:
        sys.stdout.write(gateway.base_url + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(serve(**json.loads(sys.argv[1])))
