"""A program that asks once in one way, and ends: `python endings.py WAY BASE_URL STORE`. Prints the answers' texts."""

import asyncio
import multiprocessing
import sys
import threading
import warnings

from ctxcache import system
from ctxcache.cluster import PrefixAsker

BATCH = {"question": ["a", "b"]}


def show(result: dict[str, list[str]]) -> None:
    """Print the texts."""
    print(*result["text"], sep=", ", flush=True)


def with_run(asker: PrefixAsker) -> None:
    """`asyncio.run`, twice: each event loop has a session of its own."""
    for _ in range(2):
        show(asyncio.run(asker(BATCH)))


def in_threads(asker: PrefixAsker) -> None:
    """No event loop."""
    show(asker.run(BATCH))


def left_running(asker: PrefixAsker) -> None:
    """An event loop in a daemon thread that nobody ends, as Ray's."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    show(asyncio.run_coroutine_threadsafe(asker(BATCH), loop).result())


def left_open(asker: PrefixAsker) -> None:
    """An event loop that stands still and is never closed, of which asyncio warns."""
    warnings.filterwarnings("ignore", "unclosed event loop", ResourceWarning)
    show(asyncio.new_event_loop().run_until_complete(asker(BATCH)))


def in_a_fork(asker: PrefixAsker) -> None:
    """A child of a process that has asked already, and asks again after the child has ended."""
    show(asker.run(BATCH))
    _in_a_child("fork", asker)
    show(asker.run(BATCH))


def spawned(asker: PrefixAsker) -> None:
    """A child that gets the asker pickled."""
    _in_a_child("spawn", asker)


def _in_a_child(method: str, asker: PrefixAsker) -> None:
    child = multiprocessing.get_context(method).Process(target=in_threads, args=(asker,))
    child.start()
    child.join(30)
    assert child.exitcode == 0, child.exitcode


if __name__ == "__main__":
    globals()[sys.argv[1]](
        PrefixAsker(model="Doubao-1.5-pro-32k", messages=[system("M")], base_url=sys.argv[2], store=sys.argv[3])
    )
