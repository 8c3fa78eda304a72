"""Usage and cost over all starts of a batch."""

import json
import random
from typing import Any

import pytest

from ctxcache import Prices, PromptTokensDetails, Usage
from ctxcache.cli.batch.books import Alive, Books
from ctxcache.cli.usage import usage_json

CREATE = Usage(prompt_tokens=1000, total_tokens=1000)
ANSWER = Usage(
    prompt_tokens=1010,
    completion_tokens=20,
    total_tokens=1030,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=1000),
)
PRICES = Prices(input=10, cached=1, output=20, storage_per_hour=100)


def two_starts() -> Books:
    """Two contexts, created by two starts, with an answer each."""
    books = Books()
    for at, context_id in ((0.0, "ctx-1"), (7200.0, "ctx-2")):
        books.created(context_id, CREATE, at, 3600)
        books.answered(context_id, ANSWER, at + 60)
    return books


def test_cost_of_all_starts() -> None:
    """The cost has every create, answer and hour of storage."""
    books = two_starts()
    cost = books.cost(PRICES, now=7260.0)
    assert (books.creates, cost.calls) == (2, 2)
    assert books.usage.prompt_tokens == 4020
    assert cost.input == pytest.approx((2 * 1000 + 2 * 10) * 10 / 1e6)
    assert cost.cached == pytest.approx(2 * 1000 * 1 / 1e6)
    assert cost.output == pytest.approx(2 * 20 * 20 / 1e6)
    assert cost.storage == pytest.approx(3 * 1000 * 100 / 1e6)  # two clock hours of ctx-1, one of ctx-2


def test_books_from_lines() -> None:
    """The lines of a file give the same books as the calls that wrote them."""
    books = Books()
    for at, context_id in ((0, "ctx-1"), (7200, "ctx-2")):
        create = {"context_id": context_id, "time": at, "ttl": 3600, "usage": usage_json(CREATE)}
        line = {"context_id": context_id, "time": at + 60, "usage": usage_json(ANSWER), "created": [create]}
        books.enter_line(json.loads(json.dumps(line)))
    expected = two_starts()
    assert books.cost(PRICES, 7260.0) == expected.cost(PRICES, 7260.0)
    assert books.still_billed(7260.0) == expected.still_billed(7260.0)


def test_a_merged_file() -> None:
    """Many contexts in use at once, entered in any order, cost what each costs alone."""
    lines: list[dict[str, Any]] = []
    alone = 0.0
    for shard in range(40):
        own = [
            {"context_id": f"ctx-{shard}", "time": shard * 600 + hour * 3600.0, "usage": usage_json(ANSWER)}
            for hour in range(5)
        ]
        create = {"context_id": f"ctx-{shard}", "time": shard * 600.0, "ttl": 7200, "usage": usage_json(CREATE)}
        own[0]["created"] = [create]
        books = Books()
        for line in own:
            books.enter_line(line)
        alone += books.cost(PRICES, 1e6).total
        lines += own
    for seed in range(20):
        random.Random(seed).shuffle(lines)
        merged = Books()
        for line in lines:
            merged.enter_line(line)
        assert merged.cost(PRICES, 1e6).total == pytest.approx(alone)


def test_uses_in_any_order() -> None:
    """A context is billed from its last use on, whichever answer is entered last."""
    books = two_starts()
    books.answered("ctx-2", ANSWER, 9000.0)
    books.answered("ctx-2", ANSWER, 8000.0)
    assert books.still_billed(9000.0) == Alive("ctx-2", 9000.0 + 3600)


def test_the_context_that_is_billed_longest() -> None:
    """A context is billed until it was idle for its ttl."""
    books = two_starts()
    alive = books.still_billed(7260.0)
    assert alive is not None
    assert (alive.context_id, alive.end) == ("ctx-2", 7260.0 + 3600)
    assert books.still_billed(alive.end) is None
    assert Books().still_billed(0.0) is None


def test_use_of_an_unknown_context() -> None:
    """An answer over a context of another process counts, and is no context of these books."""
    books = Books()
    books.answered("ctx-9", ANSWER, 60.0)
    books.answered(None, None, 61.0)
    assert books.cost(PRICES, 62.0).calls == 2
    assert books.still_billed(62.0) is None


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"context_id": 5, "time": "now", "usage": [], "created": {}}',
        '{"created": [5, {}], "time": -1}',
        '{"time": 1e300, "created": [{"context_id": null, "ttl": true, "usage": {"prompt_tokens": -1}}]}',
        '{"usage": {"prompt_tokens": 1.5, "completion_tokens": 1, "total_tokens": 1}}',
    ],
)
def test_odd_lines(line: str) -> None:
    """Odd or missing values count as unknown."""
    books = Books()
    books.enter_line(json.loads(line))
    assert books.usage == Usage() + Usage()
    assert books.cost(PRICES, 0.0).calls == 1


def test_few_contexts_are_remembered() -> None:
    """The ends of the last contexts are remembered, however many there were."""
    books = Books()
    for number in range(100):
        books.created(f"ctx-{number}", None, float(number), 3600 if number > 50 else 600_000)
    alive = books.still_billed(100.0)
    assert alive is not None
    assert alive.context_id == "ctx-99"
