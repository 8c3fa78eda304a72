"""The targets: what was to be reached, as ratios within one run, and what was."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from .analysis import faster_peer, ratio
from .clients import FLOOR, OURS, UVLOOP
from .decoders import HTTPX_SSE
from .growth_curves import lines
from .relays import FLOOR_UVLOOP, LITELLM
from .results import Results, Series

__all__ = ["LINEAR", "Row", "rows"]

_UNKNOWN: Final = Series(())
LINEAR: Final = 1.1  # the largest exponent that is called linear, for the noise's sake


@dataclass(frozen=True)
class Row:
    """One target, and what the run found.

    Attributes:
        at_least: whether `found` is to be at least `limit`, or at most.
        found: empty where the run cannot say.
        floor: the same of bare aiohttp, which no client on top of it can pass; empty where that says nothing.
    """

    what: str
    asked: str
    limit: float
    at_least: bool
    found: Series
    floor: Series = _UNKNOWN

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the limit; None where the run cannot say."""
        if not self.found:
            return None
        return self.found.median >= self.limit if self.at_least else self.found.median <= self.limit


def rows(results: Results) -> list[Row]:
    """Every target, one row a case."""
    return [
        *_against_both(results, "stream", "cpu_us", "stream: CPU a typed chunk", 40, 2.0),
        *_against_both(results, "paced", "cpu_us", "paced: CPU a typed chunk", 20, 1.5),
        *_live(results),
        *_against_both(results, "requests", "cpu_us", "plain requests: CPU a call", 11, 1.3),
        *_managed(results),
        *_cluster(results),
        *_memory(results),
        *_relay(results),
        *_imports(results),
        *_decode(results),
        *_linear(results),
    ]


def _against_both(results: Results, scenario: str, metric: str, what: str, less: float, most: float) -> Iterator[Row]:
    for case in results.cases(scenario):
        peer = faster_peer(results, scenario, case, metric)
        found, floor = (
            ratio(results, scenario, case, metric, (peer, client)) if peer else _UNKNOWN for client in (OURS, FLOOR)
        )
        yield Row(f"{what}, {case}", f"≥ {less:g}× less than {peer or 'the faster peer'}", less, True, found, floor)
        found = ratio(results, scenario, case, metric, (OURS, FLOOR))
        yield Row(f"{what}, {case}", f"≤ {most:.1f}× bare aiohttp", most, False, found)


def _live(results: Results) -> Iterator[Row]:
    for case in results.cases("live"):
        peer = faster_peer(results, "live", case, "streams", more=True)
        found, floor = (
            ratio(results, "live", case, "streams", (client, peer)) if peer else _UNKNOWN for client in (OURS, FLOOR)
        )
        asked = f"≥ 20× more than {peer or 'the better peer'}"
        yield Row("live streams a core, 50 chunks/s", asked, 20, True, found, floor)


def _managed(results: Results) -> Iterator[Row]:
    limits = {"ask_ratio": ("Prefix.ask", 1.15), "conversation_ratio": ("Conversation.ask", 1.15)}
    limits |= {"map_ratio": ("Prefix.map, a question", 1.25)}
    for case in results.cases("managed"):
        for metric, (what, most) in limits.items():
            found = results.series("managed", case, OURS, metric)
            yield Row(f"managed: CPU of {what}, {case}", f"≤ {most:g}× chat.create", most, False, found)


def _cluster(results: Results) -> Iterator[Row]:
    for case in results.cases("cluster"):
        found = results.series("cluster", case, OURS, "core_share")
        yield Row(f"cluster: questions a core, Dask, {case}", "≥ 75% of Prefix.map's", 75, True, found)


def _memory(results: Results) -> Iterator[Row]:
    for case in results.cases("memory"):
        if case.endswith("open"):
            found = ratio(results, "memory", case, "kb_stream", (OURS, FLOOR))
            yield Row(f"memory of an open stream, {case}", "≤ 1.4× bare aiohttp", 1.4, False, found)


def _relay(results: Results) -> Iterator[Row]:
    """Like against like: both on asyncio's event loop or both on uvloop, which `serve` takes by itself, as LiteLLM."""
    loops = [("", OURS, FLOOR), (" on uvloop", UVLOOP, FLOOR_UVLOOP)]
    loops = [loop for loop in loops if loop[1] in results.clients("relay")]
    limits = {"streams": ("CPU a chunk", "cpu_us", 1.4), "open": ("memory of an open stream", "kb_stream", 2.0)}
    for case in results.cases("relay"):
        what, metric, most = limits.get(case.rpartition(" ")[2], ("", "", 0.0))
        for loop, ours, floor in loops if what else ():
            found = ratio(results, "relay", case, metric, (ours, floor))
            yield Row(f"relay: {what}, {case}", f"≤ {most:.1f}× bare aiohttp{loop}", most, False, found)
        if metric == "cpu_us" and loops:
            _, ours, floor = loops[-1]
            found, bare = (ratio(results, "relay", case, metric, (LITELLM, client)) for client in (ours, floor))
            yield Row(f"relay: {what}, {case}", "≥ 25× less than litellm", 25, True, found, bare)


def _imports(results: Results) -> Iterator[Row]:
    if "imports" in results.scenarios():
        found = ratio(results, "imports", "import", "cpu_ms", ("openai", OURS))
        yield Row("import", "≥ 8× less than openai", 8, True, found)
        found = results.series("imports", "import", OURS, "imports_aiohttp")
        yield Row("import", "`import ctxcache` does not import aiohttp (0)", 0, False, found)


def _decode(results: Results) -> Iterator[Row]:
    for case in results.cases("decode"):
        found = ratio(results, "decode", case, "events_s", (OURS, HTTPX_SSE))
        yield Row(f"decode, {case}", "≥ 3× httpx-sse's events/s", 3, True, found)


def _linear(results: Results) -> Iterator[Row]:
    for line in lines(results):
        if line.client == OURS and not math.isnan(line.exponent):
            yield Row(
                f"cost grows with work, {line.curve}", "linear (exponent)", LINEAR, False, Series((line.exponent,))
            )
