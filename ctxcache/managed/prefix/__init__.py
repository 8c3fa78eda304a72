"""A prompt that many calls share: `Prefix`.

Floors, from the top; a file imports from lower floors only::

    prefix          Prefix: the public face
    call            PrefixCall: one call, repeated if its context is gone
    renewal         Renewal: which context is used now; found, created, replaced
    lease           the right to create, held in the store
    shared_pause    SharedPause: when the service may be called again, as any process was told
    store_access    one key in a store, behind a time limit     repeat_budget  repeats stay a share of the calls
    breaker         CircuitBreaker: one for each store object
    timing          Timing: clock, sleep, randomness, limits
"""

from .prefix import Prefix

__all__ = ["Prefix"]
