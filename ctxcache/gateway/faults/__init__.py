"""Faults on cue, for those who test clients: refusals, lost answers, cut streams, outages.

::

    controls   FaultControls: `gateway.fail(503, times=2)`, … and `heal`   ─┐ asyncio and
    endpoints  create and chat, with the faults that strike a call          │ aiohttp
    spoiled    the fragments and the stream of a call that a fault struck  ─┘
    ── below: pure ──
    plan       the faults that are set: which of them strike a call
    record     what came, what was answered, what was stored
    spoiling   answers that are cut, garbled, or lack their usage
    grammar    "chat:fail=503,times=2" → a Fault
    fault      Fault: what happens, on which calls

A gateway without faults pays one look at an empty plan a call.
"""

from .controls import FaultControls, SetFault
from .fault import Fault

__all__ = ["Fault", "FaultControls", "SetFault"]
