"""What the tests of calls and streams share: ways to read, to fail, and to look at an error from all sides."""

import gc
import pickle
import traceback
from types import FunctionType, ModuleType

import attrs
import pytest

from ctxcache import CtxCacheError, Retry
from ctxcache.config import Secret

from ..hostile import CHAT, answer


class Clock:
    """A clock turned by hand, in seconds.

    Attributes:
        now: the time.
        reads: how often somebody looked at the clock.
    """

    def __init__(self):
        self.now, self.reads = 1000.0, 0

    def __call__(self):
        """Return the time."""
        self.reads += 1
        return self.now

    async def pass_time(self, hostile, seconds):
        """Let time pass, and wait until everything that looks at the clock from time to time has done so."""
        self.now += seconds
        enough = self.reads + 5
        await hostile.until(lambda: self.reads >= enough)


QUICK = Retry(first_delay=0.001)
OK = [answer()]


async def failure(call):
    """Await a call that must fail; return its error. The key is in no local variable of this frame."""
    try:
        await call
    except CtxCacheError as error:
        return error
    raise AssertionError("it did not fail")


async def read(stream):
    """Read a stream to its end."""
    return "".join([piece_of_it.text async for piece_of_it in stream])


async def texts(stream):
    """All pieces of text that are not empty, one after the other."""
    return [text async for text in stream.text()]


async def collect(stream, seen, happened=None):
    """Read a stream, and add the text of each chunk to `seen`."""
    async for piece_of_it in stream:
        seen.append(piece_of_it.text)
        if happened is not None:
            happened.set()


async def broken(session, **options):
    """Read a stream to its error; return the error and the text of the chunks that came before it."""
    stream, seen = session.chat.stream(**CHAT, **options), []
    with pytest.raises(CtxCacheError) as caught:
        await collect(stream, seen)
    assert not stream.done
    return caught.value, "".join(seen)


async def idle_connection(hostile, session):
    """Make one call whose connection goes back to the pool; return the server's end of it."""
    hostile.plays([answer()])
    await session.chat.create(**CHAT)
    return hostile.connections[-1]


def everything(error):
    """All that can be seen of an error: its texts, its data, its chain, its traceback with local variables."""
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    parts = ["".join(shown.format()), repr(error), str(error), repr(error.args), repr(pickle.dumps(error))]
    while error is not None:
        parts.append(repr(vars(error)))
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def reachable(thing):
    """Everything of this package, of aiohttp and of Python itself that a thing holds, and the attributes of each."""
    found, waiting = {}, [thing]
    while waiting:
        held = waiting.pop()
        if id(held) not in found and type(held).__module__.partition(".")[0] in _WALKED:
            found[id(held)] = held
            if not isinstance(held, type | FunctionType | ModuleType | Secret):
                waiting += gc.get_referents(held)
            if attrs.has(type(held)):  # of a struct the collector does not know all
                waiting += [getattr(held, field.name) for field in attrs.fields(type(held))]
    yield from (held for held in found.values() if not isinstance(held, str))
    yield from (vars(held) for held in found.values() if hasattr(held, "__dict__"))


_WALKED = ("ctxcache", "aiohttp", "builtins", "functools")
