"""A gateway for tests of services: runs beside the test, keeps a record of every call, and says what went wrong.

::

    gateway    RecordingGateway: a gateway in a thread of its own, what was called, verdicts   (asyncio, threads)
    clock      Clock: the gateway's time, which only a test moves
    ── below: pure ──
    verdicts   the findings in a record of calls
    books      which turns were lost, which stored twice

The fixtures `ctxcache_gateway`, `ctxcache_session` and `ctxcache_clock` are in the module `ctxcache_pytest`, which
pytest loads by itself and which imports this package when a fixture is used.
"""

from ..gateway.faults.record import RecordedCall
from .clock import Clock
from .gateway import RecordingGateway
from .verdicts import Finding

__all__ = ["Clock", "Finding", "RecordedCall", "RecordingGateway"]
