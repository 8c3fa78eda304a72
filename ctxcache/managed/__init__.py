"""Contexts that look after themselves.

Where is what, from the top::

    prefix         Prefix: one cached prompt, any number of calls    conversation     Conversation: turns in order
    prefix_calls   each call on the context there is                 dialogue         one turn, and what became of it
    renewal        which context next: found, created, anew          session_context  the context of a conversation
    flight         one creation for all who wait                     transcript       what was said
    sharing        a store that may fail without failing a call      saved            a conversation as JSON
    stores/        memory, SQLite, Redis                             question         what may be asked

    mapping        Map: many questions over one prefix               streams          a beginning that may be repeated
    asking         its tasks, and what they share                    costs            Prices, Ledger, Cost
    limiter        how many calls at once                            expiry           the idle timer
    answers, jobs  in which order, and from where
"""

from .conversation import Conversation
from .costs import Cost, Prices
from .mapping import Answer, Map
from .prefix import Prefix
from .stores import MemoryStore, RedisStore, SQLiteStore, Store, StoredContext
from .streams import ManagedStream
from .transcript import TranscriptTurn

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
