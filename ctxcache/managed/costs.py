"""The books of a managed context: its usage, the cost, and whether caching pays. Pure.

Tokens are counted as whole numbers and turned into money once, at the end, so no rounding accumulates.

Storage is billed for each context and each clock hour of its life, by the most tokens cached in that hour. A context,
replaced or not, lives until it was idle for its ttl: no endpoint ends a context. The tokens cached only grow, so a
context needs four numbers at any age: the token-hours settled, the first hour not settled, the tokens, the end.
Contexts that were replaced and are no longer used share one sum of hours. So the books of months, over any number of
re-creations, stay small.
"""

import math
from collections import OrderedDict, defaultdict
from typing import Any, Final

import attrs

from ..errors import InvalidInputError
from ..keywords import suggest_fields
from ..models import Usage

__all__ = ["Cost", "Ledger", "Prices"]

_MILLION: Final = 1_000_000
_HOUR: Final = 3600
_LONGEST_TTL: Final = 366 * 86400.0  # far above any service's
# A replaced context can still be used by calls under way. A use of a context closed already is counted, but does not
# extend its storage.
_OPEN_ACCOUNTS: Final = 16


def _price(instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < 0:
        raise InvalidInputError.of(f"{type(instance).__name__}.{attribute.name}", value, "a number from 0 up")


@suggest_fields
@attrs.frozen
class Prices:
    """Prices per million tokens, in any currency.

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
    100 calls cost 3.0000, without a context 8.4000: caching saved 64%, it pays from call 14 on

    Attributes:
        calls: chats on the context; creates are not among them.
        uncounted: the calls for which the service sent no usage; no sum includes them.
        input: cost of prompt tokens not read from the cache, creates included.
        cached: cost of prompt tokens read from the cache.
        output: cost of the answers.
        storage: cost of storage up to now.
        without: cost of the same calls with every prompt token at the full price, without creates and storage.
        break_even_calls: the number of calls like these from which caching pays, with creates and storage as they
            were; None if caching never pays, or nothing is known yet.
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
        """The sum of input, cached, output and storage."""
        return self.input + self.cached + self.output + self.storage

    @property
    def saved(self) -> float:
        """The money saved by caching; negative if caching cost more."""
        return self.without - self.total

    def __str__(self) -> str:
        calls = f"{self.calls:,} call{'' if self.calls == 1 else 's'}"
        if self.uncounted:
            calls += f" ({self.uncounted:,} of them not counted, for want of usage)"
        if self.calls == self.uncounted:
            return f"{calls} so far; the context cost {_money(self.total)}"
        verdict = "caching saved nothing"
        if self.without > 0 and self.saved:
            share = f"{abs(self.saved) / self.without:.0%}"
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
class _Account:
    """The storage of one context: the part settled, and the numbers for the rest."""

    ttl: float | None  # None: not created here, so its storage is in other books
    hour: int = 0  # storage before this hour is settled
    settled: int = 0  # in token-hours
    tokens: int = 0
    last_use: float = 0.0
    uses: int = 0  # with known usage
    reported: bool = False

    def use(self, at: float, tokens: int) -> None:
        """Extend the life, with at least so many tokens; the clock may have gone back."""
        hour = int(at // _HOUR)
        if hour > self.hour:
            self.settled += (hour - self.hour) * self.tokens
            self.hour = hour
        self.tokens = max(self.tokens, tokens)
        self.last_use = max(self.last_use, at)

    @property
    def end_hour(self) -> int:
        """The first clock hour after the context's end."""
        return max(math.ceil((self.last_use + (self.ttl or 0.0)) / _HOUR), self.hour + 1)


class Ledger:
    """The books of one managed context, over all its re-creations.

    For a context adopted from a store, only uses are entered here; the create and the storage are in the books of its
    creator.

    Args:
        grows: whether calls add to the cached tokens, as on a session context; on a prefix nothing is added.
        open_accounts: how many contexts may be in use at a time. The books grow with that number.

    Attributes:
        calls: the number of uses.
        creates: the number of creates.
    """

    def __init__(self, *, grows: bool = False, open_accounts: float = _OPEN_ACCOUNTS) -> None:
        self.calls = 0
        self.creates = 0
        self._grows = grows
        self._open_accounts = open_accounts
        self._counted = 0
        self._of_creates = Usage()
        self._of_calls = Usage()
        self._accounts: OrderedDict[str, _Account] = OrderedDict()  # the least recently used first
        self._settled = 0  # token-hours of closed accounts
        # By clock hour: the tokens of closed accounts stored more, or less, from then on.
        self._changes: defaultdict[int, int] = defaultdict(int)

    @property
    def usage(self) -> Usage:
        """Total usage of creates and calls."""
        return self._of_creates + self._of_calls

    def created(self, context_id: str, usage: Usage | None, at: float, ttl: float) -> None:
        """Enter the create of a context.

        Args:
            context_id: the context's id.
            usage: the usage of the create, if any.
            at: Unix seconds.
            ttl: the idle time in seconds.
        """
        self.creates += 1
        account = self._account(context_id)
        if account.ttl is None:  # uses entered before the create settled hours that are counted from the create on
            account.hour, account.settled = int(at // _HOUR), 0
        account.ttl = min(ttl, _LONGEST_TTL)
        account.use(at, 0 if usage is None else usage.prompt_tokens)
        if usage is not None:
            self._of_creates += usage
        self._settle(account.hour)

    def used(self, context_id: str, usage: Usage | None, at: float) -> bool:
        """Enter a chat on a context.

        Args:
            context_id: the context's id.
            usage: the usage of the answer, if any.
            at: Unix seconds.

        Returns:
            True once for each context: when a repeat use shows no cached tokens.
        """
        self.calls += 1
        account = self._account(context_id)
        if usage is None:
            account.use(at, 0)
            return False
        self._counted += 1
        self._of_calls += usage
        account.uses += 1
        # On a prefix, tokens read from the cache must be kept there; some services send no usage with the create.
        account.use(at, usage.prompt_tokens + usage.completion_tokens if self._grows else usage.cached_tokens)
        if account.uses < 2 or usage.cached_tokens or account.reported:
            return False
        account.reported = True
        return True

    def cost(self, prices: Prices, now: float) -> Cost:
        """Return the cost of everything entered.

        Args:
            prices: the service's prices.
            now: Unix seconds; storage is counted up to the end of this clock hour.
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

    def _account(self, context_id: str) -> _Account:
        """Return a context's account; opening a new one may close the account unused for the longest time."""
        account = self._accounts.get(context_id)
        if account is None:
            account = self._accounts[context_id] = _Account(None)
            if len(self._accounts) > self._open_accounts:
                _, old = self._accounts.popitem(last=False)
                self._close(old)
        self._accounts.move_to_end(context_id)
        return account

    def _close(self, account: _Account) -> None:
        if account.ttl is not None:
            self._settled += account.settled
            self._changes[account.hour] += account.tokens
            self._changes[account.end_hour] -= account.tokens

    def _settle(self, hour: int) -> None:
        """Settle closed accounts up to an hour, so that no more changes are kept than hours to come."""
        tokens, before = 0, 0
        for at in sorted(self._changes):
            if at >= hour:
                break
            self._settled += tokens * (at - before)
            tokens, before = tokens + self._changes.pop(at), at
        if tokens:
            self._settled += tokens * (hour - before)
            self._changes[hour] += tokens

    def _token_hours(self, end: int) -> int:
        """Add up the tokens stored in each clock hour before `end`."""
        open_accounts = sum(
            account.settled + account.tokens * max(min(account.end_hour, end) - account.hour, 0)
            for account in self._accounts.values()
            if account.ttl is not None
        )
        return open_accounts + self._settled + sum(n * (end - at) for at, n in self._changes.items() if at < end)


def _sum(usage: Usage, prices: Prices) -> float:
    return (
        usage.fresh_tokens * prices.input
        + usage.cached_tokens * prices.cached
        + usage.completion_tokens * prices.output
    ) / _MILLION
