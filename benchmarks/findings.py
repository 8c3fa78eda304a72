"""What a run found, a sentence for each scenario: the titles of its pictures."""

import math
from collections.abc import Callable, Iterable
from typing import Final

from . import scenarios
from .analysis import faster_peer, ratio, shown
from .clients import FLOOR, OURS
from .decoders import HTTPX_SSE
from .growth_curves import lines
from .relays import LITELLM
from .results import Results
from .targets import LINEAR

__all__ = ["compared", "finding"]

# The subject of "… bare aiohttp's CPU", by scenario, and the resource that is compared.
_SUBJECTS: Final = {
    "stream": ("A typed chunk", "CPU"),
    "paced": ("A chunk of a paced stream", "CPU"),
    "requests": ("A plain call", "CPU"),
    "first_token": ("The first token", "time"),
    "memory": ("An open stream", "memory"),
    "cancel_storm": ("A cancelled stream", "CPU"),
}


def finding(results: Results, name: str) -> str:
    """Say in one sentence what a scenario found; its plain title where clients to compare with are missing."""
    if name in _SUBJECTS:
        found = _against_the_floor(results, name, *_SUBJECTS[name])
    else:
        special: dict[str, Callable[[Results], str]] = {
            "live": _live,
            "imports": _imports,
            "decode": _decode,
            "growth": _growth,
            "ceiling": _ceiling,
            "cluster": _cluster,
            "relay": _relay,
        }
        found = special[name](results) if name in special else ""
    return found or scenarios.load(name).title


def compared(results: Results, name: str) -> list[str]:
    """The cases of a scenario whose figures can be compared with one another."""
    return [case for case in results.cases(name) if "came and went" not in case]  # then nothing is open any more


def _against_the_floor(results: Results, name: str, subject: str, resource: str) -> str:
    metric = scenarios.load(name).metrics[0].key
    cases = compared(results, name)
    ours = _times(ratio(results, name, case, metric, (OURS, FLOOR)).median for case in cases)
    peers = [(case, faster_peer(results, name, case, metric)) for case in cases]
    theirs = _times(ratio(results, name, case, metric, (peer, FLOOR)).median for case, peer in peers if peer)
    if not ours or not theirs:
        return ""
    return f"{subject} takes {ours} bare aiohttp's {resource}; with the best peer {theirs}"


def _times(ratios: Iterable[float]) -> str:
    found = sorted(value for value in ratios if not math.isnan(value))  # NaN: not measured
    if not found:
        return ""
    low, high = shown(found[0], 2), shown(found[-1], 2)
    return f"{low} times" if low == high else f"{low} to {high} times"


def _live(results: Results) -> str:
    (case, *_) = results.cases("live")
    ours, floor = (results.median("live", case, client, "streams") for client in (OURS, FLOOR))
    peer = faster_peer(results, "live", case, "streams", more=True)
    if not (ours > 0 and floor > 0 and peer):
        return ""
    best = results.median("live", case, peer, "streams")
    return f"One core holds {ours:,.0f} live streams; with bare aiohttp {floor:,.0f}, with the best peer {best:,.0f}"


def _cluster(results: Results) -> str:
    shares = [results.series("cluster", case, OURS, "core_share") for case in results.cases("cluster")]
    if not shares or not all(shares):
        return ""
    return f"Dask's workers answer {min(share.median for share in shares):.0f}% of what Prefix.map does with a core"


def _relay(results: Results) -> str:
    ours, theirs = (
        _times(ratio(results, "relay", case, "cpu_us", (relay, FLOOR)).median for case in results.cases("relay"))
        for relay in (OURS, LITELLM)
    )
    return f"A relayed chunk takes {ours} bare aiohttp's CPU; with LiteLLM {theirs}" if ours and theirs else ""


def _imports(results: Results) -> str:
    ours = results.median("imports", "import", OURS, "cpu_ms")
    peer = faster_peer(results, "imports", "import", "cpu_ms")
    if not (ours > 0 and peer):
        return ""
    theirs = results.median("imports", "import", peer, "cpu_ms")
    return f"Importing ctxcache takes {shown(ours)} ms of CPU; the best peer's import takes {shown(theirs)} ms"


def _decode(results: Results) -> str:
    cases = results.cases("decode")
    theirs = _times(ratio(results, "decode", case, "cpu_us", (HTTPX_SSE, OURS)).median for case in cases)
    return f"httpx-sse takes {theirs} the CPU of ctxcache to decode" if theirs else ""


def _growth(results: Results) -> str:
    exponents = sorted(line.exponent for line in lines(results) if line.client == OURS)
    if not exponents:
        return ""
    linear = exponents[-1] <= LINEAR
    beginning = "Twice the work costs at most about twice as much" if linear else "A cost grows faster than the work"
    return f"{beginning}: the largest exponent is {exponents[-1]:.2f}"


def _ceiling(results: Results) -> str:
    rates = [
        results.median("ceiling", case, client, "rate")
        for case in ("whole", "plain")
        for client in results.clients("ceiling")[:1]
    ]
    if not all(rate > 0 for rate in rates):
        return ""
    return f"The server writes {rates[0] / 1e6:.0f} million chunks, or answers {rates[1]:,.0f} calls, a second"
