"""`shared_pause` in processes: a 429 of one with `Retry-After` pauses the other."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web

from ..redis_server import BINARY, NO_BINARY, redis_server

MAPPER = Path(__file__).with_name("mapper.py")
PAUSE = 3.0


class Limited:
    """A service that refuses one call, once two processes have had 20 answers each, and notes the calls after that."""

    def __init__(self):
        self.answered = Counter()
        self.refused_at = None
        self.later = []
        self.back = set()
        self.both_back = asyncio.Event()

    async def create(self, request):
        """Create the context."""
        return web.json_response({"id": "ctx-1", "mode": "common_prefix", "ttl": 3600})

    async def chat(self, request):
        """Answer, or refuse."""
        user = (await request.json())["user"]
        if self.refused_at is not None:
            after = time.monotonic() - self.refused_at
            self.later.append((after, user))
            self.back |= {user} if after > PAUSE - 0.1 else set()
            if len(self.back) == 2:
                self.both_back.set()
        elif len(self.answered) == 2 and min(self.answered.values()) >= 20:
            self.refused_at = time.monotonic()
            return web.json_response({}, status=429, headers={"Retry-After": str(PAUSE)})
        self.answered[user] += 1
        await asyncio.sleep(0.01)
        message = {"role": "assistant", "content": "Yes."}
        return web.json_response({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


@pytest.fixture
async def limited():
    """The service, and its URL."""
    service, app = Limited(), web.Application()
    app.router.add_post("/v1/context/create", service.create)
    app.router.add_post("/v1/context/chat/completions", service.chat)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield service
    await runner.cleanup()


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """Where the store is."""
    if request.param == "sqlite":
        yield str(tmp_path / "contexts.db")
        return
    if BINARY is None:
        pytest.skip(NO_BINARY)
    with redis_server() as url:
        yield url


def mapper(*arguments):
    """Start a process that maps."""
    return subprocess.Popen([sys.executable, str(MAPPER), *arguments], stderr=subprocess.PIPE)


async def test_a_429_of_one_process_pauses_the_other(limited, place, key):
    """Neither calls in the second half of the pause, and both go on when the pause is over."""
    processes = [mapper(limited.url, key, place, name) for name in ("one", "two")]
    try:
        async with asyncio.timeout(60):
            await limited.both_back.wait()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [call for call in limited.later if PAUSE / 2 < call[0] < PAUSE - 0.1] == []
