"""Stores: which context serves which prefix, and when to pause, shared between tasks, processes or machines.

======================  ============================  =================================
`MemoryStore()`         one process                   ends with the process
`SQLiteStore(path)`     many processes, one machine   a file; the standard library
`RedisStore(url)`       many machines                 Redis or Valkey; the extra `redis`
======================  ============================  =================================

Any object with the methods of `Store` will do. sqlite3 and redis are imported when a store of that kind is made.
`async with` closes a store at the end of the block; whoever made a store closes it, after the sessions that use it.
`open_store` opens one of the two shared between processes by a string: a path, or a URL.
"""

from .memory import MemoryStore
from .opening import open_store, sqlite_path
from .protocol import Store, StoredContext
from .redis import RedisStore
from .sqlite import SQLiteStore

__all__ = ["MemoryStore", "RedisStore", "SQLiteStore", "Store", "StoredContext", "open_store", "sqlite_path"]
