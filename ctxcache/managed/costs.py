"""The books of a managed context: what it used, what that costs, and whether caching pays. Pure.

Tokens are counted as whole numbers and turned into money once, at the end, so nothing is rounded on the way.

Storage is billed for each context and each clock hour in which it lives, by the most tokens cached in that hour. A
context lives until it was not used for its ttl, replaced or not: no endpoint ends one. What is cached only ever grows
here, so a context needs four numbers whatever its age: the token-hours settled, the hour from which on they are not,
the tokens, the end. Those that are replaced and used no more go into one sum of hours for all of them; so the books of
months, over any number of re-creations, stay small.
"""

import math
from collections import OrderedDict, defaultdict
from typing import Any, Final

import attrs

from ..errors import InvalidInputError
from ..models import Usage

__all__ = ["Cost", "Ledger", "Prices"]

_MILLION: Final = 1_000_000
_HOUR: Final = 3600
_LONGEST_TTL: Final = 366 * 86400.0  # far above any service's; a number like 1e300 is no end
# A replaced context can still be used by the calls under way. A later use of one that was put away is counted, too, but
# lengthens its life no more.
_KEPT: Final = 16


def _price(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0:
        raise InvalidInputError.of(f"{type(instance).__name__}.{attribute.name}", value, "a number from 0 up")


@attrs.frozen
class Prices:
    """Prices of a million tokens, in any currency.

    Attributes:
        input: for prompt tokens not read from the cache.
        cached: for prompt tokens read from the cache.
        output: for tokens of an answer.
        storage_per_hour: for tokens kept in the cache, for each clock hour.

    Raises:
        InvalidInputError: a price is not a number from 0 up.
    """

    input: float = attrs.field(validator=_price)
    cached: float = attrs.field(validator=_price)
    output: float = attrs.field(validator=_price)
    storage_per_hour: float = attrs.field(default=0.0, validator=_price)


@attrs.frozen(kw_only=True)
class Cost:
    """The bill of a managed context, beside the bill of the same calls without a context; `str()` is one line.

    >>> cost = Cost(calls=100, input=0.9, cached=1.6, output=0.4, storage=0.1, without=8.4, break_even_calls=14)
    >>> print(cost)
    100 calls cost 3.0000, without a context 8.4000: caching saved 64 %, it pays from call 14 on

    Attributes:
        calls: chats on the context; those that create it are not among them.
        uncounted: those of them for which the service sent no usage; they are in none of the sums.
        input: for prompt tokens not read from the cache, those of the creates included.
        cached: for prompt tokens read from the cache.
        output: for the answers.
        storage: for the clock hours so far.
        without: the same calls with every prompt token at the full price, and neither creates nor storage.
        break_even_calls: from how many calls on caching pays, with calls like these on average, and creates and storage
            as they were; None if it never does, or nothing is known yet.
    """

    calls: int
    uncounted: int = 0
    input: float
    cached: float
    output: float
    storage: float
    without: float
    break_even_calls: int | None

    @property
    def total(self) -> float:
        """The sum of the four."""
        return self.input + self.cached + self.output + self.storage

    @property
    def saved(self) -> float:
        """What caching saved; below 0 where it cost more."""
        return self.without - self.total

    def __str__(self) -> str:
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        if self.uncounted:
            calls += f" ({self.uncounted:,} of them not counted, for want of usage)"
        if self.calls == self.uncounted:
            return f"{calls} so far; the context cost {_money(self.total)}"
        verdict = "caching saved nothing"
        if self.without > 0 and self.saved:
            share = f"{abs(self.saved) / self.without:.0%}".replace("%", " %")
            verdict = f"caching saved {share}" if self.saved > 0 else f"caching cost {share} more"
        if self.break_even_calls is not None:
            verdict += f", it pays from call {self.break_even_calls:,} on"
        elif self.saved < 0:
            verdict += ", and further calls like these do not change that"
        return f"{calls} cost {_money(self.total)}, without a context {_money(self.without)}: {verdict}"


def _money(amount: float) -> str:
    """Four decimals, or as many as show three digits."""
    if amount >= 100:
        return f"{amount:,.2f}"
    small = 0 < amount < 0.01
    return f"{amount:.{2 - math.floor(math.log10(amount))}f}" if small else f"{amount:.4f}"


@attrs.define
class _Life:
    """One context: what is settled of its storage, and what is needed for the rest."""

    ttl: float | None  # None: not created here, so its storage is not on these books
    hour: int = 0  # of the hours before this one, the storage is settled
    settled: int = 0  # in token-hours
    tokens: int = 0
    last_use: float = 0.0
    uses: int = 0  # of which the usage is known
    reported: bool = False

    def use(self, at: float, tokens: int) -> None:
        """Live on, with so many tokens at least; the clock may have gone back."""
        hour = int(at // _HOUR)
        if hour > self.hour:
            self.settled += (hour - self.hour) * self.tokens
            self.hour = hour
        self.tokens = max(self.tokens, tokens)
        self.last_use = max(self.last_use, at)

    @property
    def end_hour(self) -> int:
        """The first clock hour in which it does not live any more."""
        return max(math.ceil((self.last_use + (self.ttl or 0.0)) / _HOUR), self.hour + 1)


class Ledger:
    """The books of one managed context, over its re-creations.

    Args:
        grows: whether calls add to what is cached, as on a session context. On a prefix nothing is added.

    A context that was created elsewhere and is shared over a store is used here as any other; its create and its
    storage stand in the books of whoever created it.

    Attributes:
        calls: the uses so far.
        creates: the creates so far.
    """

    def __init__(self, *, grows: bool = False) -> None:
        self.calls = 0
        self.creates = 0
        self._grows = grows
        self._counted = 0
        self._of_creates = Usage()
        self._of_calls = Usage()
        self._lives: OrderedDict[str, _Life] = OrderedDict()  # the least recently used first
        self._put_away = 0  # token-hours settled
        self._changes: defaultdict[int, int] = defaultdict(
            int
        )  # by clock hour: tokens stored more, or less, from then on

    @property
    def usage(self) -> Usage:
        """What creates and calls were counted at, in sum."""
        return self._of_creates + self._of_calls

    def created(self, context_id: str, usage: Usage | None, at: float, ttl: float) -> None:
        """Note that a context was created.

        Args:
            context_id: its id.
            usage: as the answer gave it.
            at: Unix seconds.
            ttl: its idle time, seconds.
        """
        self.creates += 1
        life = self._life(context_id)
        life.ttl = min(ttl, _LONGEST_TTL)
        life.hour = int(at // _HOUR)
        life.use(at, 0 if usage is None else usage.prompt_tokens)
        if usage is not None:
            self._of_creates += usage
        self._settle(life.hour)

    def used(self, context_id: str, usage: Usage | None, at: float) -> bool:
        """Note that a chat on a context was answered.

        Args:
            context_id: its id.
            usage: as the answer gave it.
            at: Unix seconds.

        Returns:
            True once for each context: when a repeat use of it, the second one or a later, shows no cached tokens.
        """
        self.calls += 1
        life = self._life(context_id)
        if usage is None:
            life.use(at, 0)
            return False
        self._counted += 1
        self._of_calls += usage
        life.uses += 1
        # On a prefix, what was read from the cache is part of what is kept there: the creates of some say no usage.
        life.use(at, usage.prompt_tokens + usage.completion_tokens if self._grows else usage.cached_tokens)
        if life.uses < 2 or usage.cached_tokens or life.reported:
            return False
        life.reported = True
        return True

    def cost(self, prices: Prices, now: float) -> Cost:
        """Turn it all into money.

        Args:
            prices: of the service.
            now: Unix seconds; storage is counted up to and with its clock hour.
        """
        storage = self._token_hours(int(now // _HOUR) + 1) * prices.storage_per_hour / _MILLION
        fixed = _sum(self._of_creates, prices) + storage
        calls, usage = self._of_calls, self.usage
        without = (calls.prompt_tokens * prices.input + calls.completion_tokens * prices.output) / _MILLION
        gain = without - _sum(calls, prices)
        return Cost(
            calls=self.calls,
            uncounted=self.calls - self._counted,
            input=usage.fresh_tokens * prices.input / _MILLION,
            cached=usage.cached_tokens * prices.cached / _MILLION,
            output=usage.completion_tokens * prices.output / _MILLION,
            storage=storage,
            without=without,
            break_even_calls=math.floor(fixed * self._counted / gain) + 1 if gain > 0 else None,
        )

    def _life(self, context_id: str) -> _Life:
        """The context, as the most recently used; the one not used for the longest time is put away for it."""
        life = self._lives.get(context_id)
        if life is None:
            life = self._lives[context_id] = _Life(None)
            if len(self._lives) > _KEPT:
                _, old = self._lives.popitem(last=False)
                self._put(old)
        self._lives.move_to_end(context_id)
        return life

    def _put(self, life: _Life) -> None:
        if life.ttl is not None:
            self._put_away += life.settled
            self._changes[life.hour] += life.tokens
            self._changes[life.end_hour] -= life.tokens

    def _settle(self, hour: int) -> None:
        """Settle what was put away up to an hour, so that there are no more changes than hours to come."""
        tokens, before = 0, 0
        for at in sorted(self._changes):
            if at >= hour:
                break
            self._put_away += tokens * (at - before)
            tokens, before = tokens + self._changes.pop(at), at
        if tokens:
            self._put_away += tokens * (hour - before)
            self._changes[hour] += tokens

    def _token_hours(self, end: int) -> int:
        """Add up the tokens stored in each clock hour before `end`."""
        lives = sum(
            life.settled + life.tokens * max(min(life.end_hour, end) - life.hour, 0)
            for life in self._lives.values()
            if life.ttl is not None
        )
        return lives + self._put_away + sum(n * (end - at) for at, n in self._changes.items() if at < end)


def _sum(usage: Usage, prices: Prices) -> float:
    return (
        usage.fresh_tokens * prices.input
        + usage.cached_tokens * prices.cached
        + usage.completion_tokens * prices.output
    ) / _MILLION
