"""Calls into an event loop from threads and other loops: results, errors, ends and leavers cross, and nothing stays."""

import asyncio
import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator

import pytest

from ctxcache import SessionError
from ctxcache.integrations.sync import BackgroundLoop, LoopGate

PLACE: contextvars.ContextVar[str] = contextvars.ContextVar("PLACE", default="nowhere")
PATIENCE = 10


@pytest.fixture
def background() -> Iterator[BackgroundLoop]:
    """A loop in a thread, which the test must leave without tasks."""
    background = BackgroundLoop()
    yield background
    background.close()


async def here() -> asyncio.AbstractEventLoop:
    """The loop in which this runs."""
    return asyncio.get_running_loop()


class Counter:
    """Makes async generators that count, and notes how far they came and when they were closed."""

    def __init__(self, last: int = 3, error: Exception | None = None) -> None:
        self.last, self.error = last, error
        self.made = 0
        self.closed = threading.Event()

    async def __call__(self) -> AsyncGenerator[int, None]:
        """Count."""
        try:
            for number in range(self.last):
                self.made += 1
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed.set()


async def forever(started: threading.Event, ended: threading.Event) -> None:
    """Wait until cancelled."""
    started.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()


def threads() -> list[threading.Thread]:
    """The threads of background loops."""
    return [thread for thread in threading.enumerate() if thread.name == "ctxcache"]


def test_one_loop_for_all_callers(background: BackgroundLoop) -> None:
    """Plain threads, and event loops that end after a call, reach the same loop."""
    loops = {background.run(here()), asyncio.run(background.arun(here()))}
    found: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=lambda: found.append(background.run(here())))
    thread.start()
    thread.join()
    assert len(loops | set(found)) == 1
    assert background.is_loop(found[0])
    assert not background.is_loop(None)


async def test_inside_a_running_loop(background: BackgroundLoop) -> None:
    """A call that blocks works within a running loop, too, which is another loop."""
    assert background.run(here()) is not asyncio.get_running_loop()
    assert list(background.iterate(Counter())) == [0, 1, 2]


def test_context_variables_cross(background: BackgroundLoop) -> None:
    """A coroutine sees the caller's context variables, as tracers need."""
    PLACE.set("the caller")

    async def place() -> str:
        return PLACE.get()

    assert background.run(place()) == "the caller"


def test_errors_cross(background: BackgroundLoop) -> None:
    """An error reaches the caller as raised, from a call and from a stream, after the items before."""

    async def fail() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        background.run(fail())
    items = background.iterate(Counter(2, KeyError("broken off")))
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(KeyError, match="broken off"):
        next(items)


@pytest.mark.parametrize("blocking", [True, False])
async def test_streams(background: BackgroundLoop, blocking: bool) -> None:
    """All items arrive once, in order; reading is one item ahead of the reader at most."""
    counter = Counter(50)
    read = []
    if blocking:
        for number in background.iterate(counter):
            read.append(number)
            assert counter.made <= number + 2
    else:
        async for number in background.aiterate(counter):
            read.append(number)
            assert counter.made <= number + 2
    assert read == list(range(50))
    assert counter.closed.is_set()


@pytest.mark.parametrize("leave", ["break", "close", "forget"])
def test_leaving_a_stream(background: BackgroundLoop, leave: str) -> None:
    """A stream that is left, closed or forgotten is closed in its loop."""
    counter = Counter(50)
    items = background.iterate(counter)
    for _ in items:
        break
    if leave == "close":
        items.close()
    del items
    assert counter.closed.wait(PATIENCE)
    assert counter.made < 5


async def test_leaving_a_stream_from_another_loop(background: BackgroundLoop) -> None:
    """So it is from another event loop."""
    counter = Counter(50)
    items = background.aiterate(counter)
    assert await anext(items) == 0
    await items.aclose()
    assert await asyncio.to_thread(counter.closed.wait, PATIENCE)


def test_a_stream_that_nobody_reads(background: BackgroundLoop) -> None:
    """A stream that is never read makes nothing."""
    counter = Counter()
    background.iterate(counter).close()
    assert background.run(here())
    assert (counter.made, counter.closed.is_set()) == (0, False)


async def test_cancelling_the_caller(background: BackgroundLoop) -> None:
    """Cancelling the caller cancels the coroutine in its loop."""
    started, ended = threading.Event(), threading.Event()
    task = asyncio.create_task(background.arun(forever(started, ended)))
    assert await asyncio.to_thread(started.wait, PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(ended.wait, PATIENCE)


def test_interrupting_the_caller() -> None:
    """Ctrl-C in a call that blocks cancels the coroutine."""
    program = """
import asyncio, os, signal
from ctxcache.integrations.sync import BackgroundLoop
async def forever():
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    finally:
        os.write(1, b"ended\\n")
try:
    BackgroundLoop().run(forever())
except KeyboardInterrupt:
    os.write(1, b"interrupted\\n")
"""
    assert sorted(run(program)) == ["ended", "interrupted"]


def run(program: str) -> list[str]:
    """Run a program that must end quietly; return the lines of the output."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("use", ["call", "stream"])
def test_closing_during_a_call(use: str) -> None:
    """A call under way when the loop is closed gets a `SessionError`, as does every call after that."""
    background = BackgroundLoop()
    started, ended = threading.Event(), threading.Event()

    async def items() -> AsyncGenerator[None, None]:
        await forever(started, ended)
        yield

    def wait() -> None:
        if use == "call":
            background.run(forever(started, ended))
        else:
            next(background.iterate(items))

    found: list[BaseException] = []

    def call() -> None:
        try:
            wait()
        except SessionError as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert started.wait(PATIENCE)
    background.close()
    thread.join(PATIENCE)
    assert [str(error) for error in found] == ["the session was closed during the call"]
    assert ended.is_set()
    with pytest.raises(SessionError, match="closed"):
        background.run(here())
    with pytest.raises(SessionError, match="closed"):
        next(background.iterate(items))
    background.close()
    assert not threads()


async def test_closing_during_a_call_of_another_loop() -> None:
    """So does a call from another event loop, which is not cancelled itself."""
    background = BackgroundLoop()
    started, ended = threading.Event(), threading.Event()
    task = asyncio.create_task(background.arun(forever(started, ended)))
    assert await asyncio.to_thread(started.wait, PATIENCE)
    await asyncio.to_thread(background.close)
    with pytest.raises(SessionError, match="closed during the call"):
        await task


def test_the_end_of_a_loop() -> None:
    """At the end what belongs to the loop is closed there, after the calls; an error of that is nobody's."""
    closed: list[str] = []

    async def close() -> None:
        closed.append(threading.current_thread().name)
        raise ValueError("broken")

    background = BackgroundLoop(close)
    background.run(here())
    background.close()
    assert closed == ["ctxcache"]
    BackgroundLoop(close).close()
    assert closed == ["ctxcache"]  # a loop that never ran has nothing to close


def test_a_forgotten_loop_ends() -> None:
    """The thread ends with the object, which needs no closing."""
    background = BackgroundLoop()
    background.run(here())
    (thread,) = threads()
    del background
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_no_noise_at_exit() -> None:
    """A process that ends with loops open, a call under way among them, closes them without a word."""
    program = """
import asyncio, contextlib, os, threading
from ctxcache.integrations.sync import BackgroundLoop
async def close():
    os.write(1, b"closed\\n")
async def forever():
    started.set()
    await asyncio.Event().wait()
started = threading.Event()
background, other = BackgroundLoop(close), BackgroundLoop(close)
other.run(asyncio.sleep(0))
def call():
    with contextlib.suppress(Exception):
        background.run(forever())
threading.Thread(target=call, daemon=True).start()
started.wait()
"""
    assert run(program) == ["closed", "closed"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_leaves_the_loops_of_the_parent_alone() -> None:
    """A child that ends does not wait for threads that it does not have; the parent's loop goes on."""
    program = """
import asyncio, os, warnings
from ctxcache.integrations.sync import BackgroundLoop
warnings.simplefilter("ignore")
background = BackgroundLoop()
background.run(asyncio.sleep(0))
if os.fork() == 0:
    raise SystemExit(background.process == os.getpid())
print(os.wait()[1])
print(background.run(asyncio.sleep(0, "alive")))
"""
    assert run(program) == ["0", "alive"]


async def test_the_loop_of_the_caller() -> None:
    """Within its own loop a gate awaits in place, and refuses to block."""
    gate = LoopGate(asyncio.get_running_loop())
    assert await gate.arun(here()) is asyncio.get_running_loop()
    assert [number async for number in gate.aiterate(Counter())] == [0, 1, 2]
    with pytest.raises(SessionError, match="would stop the event loop"):
        gate.run(here())
    with pytest.raises(SessionError, match="would stop the event loop"):
        next(gate.iterate(Counter()))


async def test_the_loop_of_another_thread() -> None:
    """A gate leads from a thread into the loop of the caller, for calls and streams."""
    gate = LoopGate(asyncio.get_running_loop())
    assert await asyncio.to_thread(lambda: gate.run(here())) is asyncio.get_running_loop()
    assert await asyncio.to_thread(lambda: list(gate.iterate(Counter()))) == [0, 1, 2]


def test_a_closed_loop() -> None:
    """A gate into a loop that is closed says so, and leaves no coroutine unawaited."""
    loop = asyncio.new_event_loop()
    loop.close()
    gate = LoopGate(loop)
    with pytest.raises(SessionError, match="closed"):
        gate.run(here())
    with pytest.raises(SessionError, match="closed"):
        asyncio.run(gate.arun(here()))
    with pytest.raises(SessionError, match="closed"):
        next(gate.iterate(Counter()))
