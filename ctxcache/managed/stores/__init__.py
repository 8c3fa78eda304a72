"""Stores: which context serves which prefix, shared by the tasks, processes or machines that use it.

======================  ============================  =================================
`MemoryStore()`         one process                   nothing outlives it
`SQLiteStore(path)`     many processes, one machine   a file; the standard library
`RedisStore(url)`       many machines                 Redis or Valkey; the extra `redis`
======================  ============================  =================================

Anything that does what `Store` describes is one as well. Neither sqlite3 nor redis is imported before a store of that
kind is made. `contextlib.aclosing(store)` closes one at the end of a block.
"""

from .memory import MemoryStore
from .protocol import Store, StoredContext
from .redis import RedisStore
from .sqlite import SQLiteStore

__all__ = ["MemoryStore", "RedisStore", "SQLiteStore", "Store", "StoredContext"]
