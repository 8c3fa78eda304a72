"""Contexts that look after themselves.

Where is what::

    prefix/        Prefix: one cached prompt, any number of calls at once; its context is shared over a store
    conversation/  Conversation: turns in order; its transcript, how it is rebuilt and saved
    mapping/       Map: many questions over one prefix, as many at once as the service takes
    stores/        which context serves which prefix: in memory, in SQLite, in Redis

    contexts       creates contexts, books their uses, tells of both      expiry    the idle timer
    streams        ManagedStream: its beginning may be repeated           costs     Prices, Ledger, Cost
    question       what may be asked, and with which options
"""

from .conversation import Conversation, TranscriptTurn
from .costs import Cost, Prices
from .mapping import Answer, Map
from .prefix import Prefix
from .stores import MemoryStore, RedisStore, SQLiteStore, Store, StoredContext
from .stream import ManagedStream

__all__ = [
    "Answer",
    "Conversation",
    "Cost",
    "ManagedStream",
    "Map",
    "MemoryStore",
    "Prefix",
    "Prices",
    "RedisStore",
    "SQLiteStore",
    "Store",
    "StoredContext",
    "TranscriptTurn",
]
