"""Contexts that look after themselves.

Floors, from the top; a file imports from lower floors only::

    prefix/        Prefix: one cached prompt for any number of calls; its context is shared over a store
    conversation/  Conversation: turns in order; its transcript, how its context is rebuilt, saved and loaded
    keeper         ContextKeeper: creates contexts, keeps their books, reports on them
    mapping/       Map: many questions over one prefix, as many at once as the service takes
    stores/        which context serves which prefix: in memory, in SQLite, in Redis
    live           LiveContext: a context in use, its idle timer and its account
    stream         ManagedStream: a stream that may begin again         costs     Prices, Ledger, Cost
    question       reads a question and the options of its call   deadline  Timeouts.total of a call, waits included
    single_flight  SingleFlight: one task at work for all waiters
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
