"""The bill for 5,000 questions about one manual, with and without a context, at assumed prices."""

from dataclasses import dataclass
from typing import Final

from ctxcache import Prices, PromptTokensDetails, Usage
from ctxcache.managed.costs import Ledger

__all__ = ["Bill", "bill"]

PRICES: Final = Prices(input=0.80, cached=0.16, output=2.00, storage_per_hour=0.017)
QUESTIONS: Final = 5000
MANUAL: Final = 30_000  # tokens
QUESTION: Final = 50
ANSWER: Final = 150
_HOUR: Final = 3600.0


@dataclass(frozen=True)
class Bill:
    """Two bills for the same questions, by item.

    Attributes:
        without: the whole manual is sent with each question.
        with_context: the manual is created as a context once, and read from the cache.
        assumed: the prices, in words.
    """

    without: dict[str, float]
    with_context: dict[str, float]
    assumed: str

    @property
    def finding(self) -> str:
        """The two sums, in a sentence."""
        before, after = (sum(items.values()) for items in (self.without, self.with_context))
        return (
            f"{QUESTIONS:,} questions about one manual of {MANUAL:,} tokens cost {after:,.2f} with a context, "
            f"{before:,.2f} without"
        )


def bill() -> Bill:
    """Reckon both bills, by the books that `Prefix.cost` keeps."""
    ledger = Ledger()
    ledger.created("ctx-1", _usage(MANUAL, 0, 0), 0.0, _HOUR)
    for _ in range(QUESTIONS):
        ledger.used("ctx-1", _usage(MANUAL + QUESTION, MANUAL, ANSWER), _HOUR / 2)
    cost = ledger.cost(PRICES, now=2 * _HOUR)
    questions = QUESTIONS * QUESTION * PRICES.input / 1e6
    return Bill(
        {"manual": cost.without - questions - cost.output, "questions": questions, "answers": cost.output},
        {"manual": cost.total - questions - cost.output, "questions": questions, "answers": cost.output},
        f"at assumed prices per million tokens: input {PRICES.input:.2f}, cached {PRICES.cached:.2f},\n"
        f"output {PRICES.output:.2f}, storage {PRICES.storage_per_hour} an hour",
    )


def _usage(prompt: int, cached: int, completion: int) -> Usage:
    details = PromptTokensDetails(cached_tokens=cached)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=details)
