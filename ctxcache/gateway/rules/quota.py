"""How much contexts may take: all of them, and within that bound those of each owner."""

import attrs

from .refusals import context_full, full, memory_full

__all__ = ["Quota"]


@attrs.define(eq=False, kw_only=True)
class Quota:
    """Bounds on contexts, and what is taken of each bound.

    Nothing is thrown away to make room: contexts end by their ttl, and a request beyond a bound is refused.

    Attributes:
        max_contexts: the most contexts at once.
        max_memory: the most bytes of memory that the messages of all contexts may take.
        max_context_memory: the most bytes that the messages of one context may take.
        within: the quota of all, if this is one owner's: everything taken here is taken there, too.
        elsewhere: whether a state that several gateways share keeps the bounds of each owner.
        contexts, memory: what is taken.
    """

    max_contexts: int = 100_000
    max_memory: int = 512 * 1024 * 1024
    max_context_memory: int = 32 * 1024 * 1024
    within: "Quota | None" = None
    elsewhere: bool = False
    contexts: int = attrs.field(default=0, init=False)
    memory: int = attrs.field(default=0, init=False)

    def add_context(self, memory: int) -> None:
        """Take what a new context needs.

        Raises:
            APIStatusError: a bound would be passed; nothing is taken.
        """
        if self.contexts >= self.max_contexts:
            raise full(self.max_contexts, of_key=self.within is not None)
        if self.within is not None and self.within.contexts >= self.within.max_contexts:
            raise full(self.within.max_contexts)
        self.grow(0, memory)
        self.shift(0, contexts=1)

    def grow(self, held: int, more: int) -> None:
        """Take `more` bytes for a context that holds so many already.

        Raises:
            APIStatusError: a bound would be passed; nothing is taken. Never for nothing more, as for a question on a
                prefix: stored replies may have passed a bound.
        """
        if more == 0:
            return
        if held + more > self.max_context_memory:
            raise context_full(held + more, self.max_context_memory)
        if self.memory + more > self.max_memory:
            raise memory_full(self.max_memory, of_key=self.within is not None)
        if self.within is not None:
            self.within.grow(held, more)
        self.memory += more

    def remove_context(self, memory: int) -> None:
        """Give back what a context took."""
        self.shift(-memory, contexts=-1)

    def shift(self, memory: int, *, contexts: int = 0) -> None:
        """Take or give back without a look at the bounds."""
        self.contexts += contexts
        self.memory += memory
        if self.within is not None:
            self.within.shift(memory, contexts=contexts)
