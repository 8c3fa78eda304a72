"""A prompt that many calls share: `Prefix`.

Floors, from the top; a file imports from lower floors only::

    prefix          Prefix: the public face
    call            PrefixCall: one call, repeated if its context is gone
    renewal         Renewal: which context is used now; found, created, replaced
    single_flight   one task at work for all waiters        store_access   one key in a store, and a circuit breaker
    timing          Timing: clock, sleep, randomness, limits
"""

from .prefix import Prefix

__all__ = ["Prefix"]
