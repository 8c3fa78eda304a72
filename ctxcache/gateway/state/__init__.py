"""Where contexts outlive the gateway's process.

::

    sqlite    SQLiteState: a file, for one gateway
    redis     RedisState: Redis or Valkey, for several gateways
    scripts   what RedisState lets the server run
    protocol  State and SharedState: what a gateway asks of any of them

A gateway without a state keeps contexts in memory alone. With one, memory still holds the contexts, all of them or
copies; the state hears of each create and each completed turn before the client learns that they succeeded.
"""

from .protocol import Claim, SharedState, State
from .redis import RedisState
from .sqlite import SQLiteState

__all__ = ["Claim", "RedisState", "SQLiteState", "SharedState", "State"]
