"""A smoke of each scenario: it works, and counts right. Never how fast."""

import math
from typing import Any

import pytest

from benchmarks import clients, loads, relays, run, scenarios
from benchmarks.cases import FULL, QUICK, TINY, Case
from benchmarks.run import chosen_clients, is_there, plan
from benchmarks.scenarios import live
from benchmarks.scenarios.requests import percentile

ALWAYS = ("ctxcache", "aiohttp", "raw socket")
PEERS = ("openai", "ark", *(name for name in relays.NAMES if name not in ALWAYS))
HEAVY = ("decode", "imports", "growth")  # the peers' part of these is tested by decoding and by their adapters


def tiny_cases(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Scenario and client, of the clients named."""
    return [(name, client) for name in scenarios.NAMES for client in scenarios.load(name).clients if client in names]


async def smoke(name: str, client: str, port: int) -> None:
    """Measure every case of a scenario once, as briefly as can be."""
    scenario = scenarios.load(name)
    cases, measured = scenario.cases(TINY), 0
    with scenario.setting(client, port, cases) as setting:
        for case in cases:
            sample = await scenario.measure(client, setting, case)
            if sample is not None:
                measured += 1
                assert all(math.isfinite(value) for value in sample.figures.values()), case
                known = {metric.key for metric in scenario.metrics}
                assert known & sample.figures.keys(), case
    assert measured


@pytest.mark.parametrize(("name", "client"), tiny_cases(ALWAYS))
async def test_smoke(name: str, client: str, port: int) -> None:
    """Each scenario works for ctxcache and for the floor."""
    await smoke(name, client, port)


@pytest.mark.parametrize(("name", "client"), [pair for pair in tiny_cases(PEERS) if pair[0] not in HEAVY])
@pytest.mark.filterwarnings("ignore")  # what the peers warn of is not ours
async def test_smoke_of_peers(name: str, client: str, port: int) -> None:
    """Each scenario works for the peers and on uvloop, where they are installed."""
    if not is_there(client):
        pytest.skip("not installed")
    await smoke(name, client, port)


@pytest.mark.parametrize("name", ["ctxcache", "openai", "ark", "aiohttp"])
@pytest.mark.filterwarnings("ignore")
async def test_clients_read_the_same(name: str, port: int) -> None:
    """Every client reads all chunks and all their text, and the times of paced ones."""
    if not is_there(name):
        pytest.skip("not installed")
    noted: list[int] = []
    async with clients.make(name, f"http://127.0.0.1:{port}/v1", 1) as client:
        await client.stream(loads.whole(20))
        assert client.chunks == 20
        for _ in range(3):  # so long that reads cut its events anywhere
            await client.stream(loads.whole(2000, 1))
        assert client.chunks == 6020
        if name != clients.FLOOR:
            assert client.characters == 18 * loads.TEXT + 3 * 1998
        await client.stamped(loads.paced(500, 6), noted.append)
        assert client.chunks == 6026
        left = [created for created in noted if created > loads.CREATED]  # the last chunks have no time of their own
        assert 1 <= len(left) <= 4
        assert sorted(left) == left
        await client.call(loads.plain(100))
        if name != clients.FLOOR:
            assert client.characters == 18 * loads.TEXT + 3 * 1998 + 100


@pytest.mark.parametrize("most", [1, 2, 3, 49, 50, 51, 90, 777, 6000])
async def test_search_finds_the_most(most: int) -> None:
    """The search ends within the precision below the largest number that holds, and never above it."""
    tried: list[int] = []

    async def holds(streams: int) -> bool:
        tried.append(streams)
        return streams <= most

    found = await live.most_held(holds, start=50, most=6000, growth=2, precision=1.04)
    assert most / 1.05 - 1 <= found <= most
    assert len(tried) < 20


async def test_search_finds_none() -> None:
    """Where not even one stream is held, the answer is 0."""

    async def holds(streams: int) -> bool:
        return False

    assert await live.most_held(holds, start=50, most=6000, growth=2, precision=1.04) == 0


async def test_search_stops_at_its_bound() -> None:
    """The search asks for no more than it may, and says so much holds."""

    async def holds(streams: int) -> bool:
        assert streams <= 500
        return True

    assert await live.most_held(holds, start=50, most=500, growth=3, precision=1.5) >= 450


def test_percentile() -> None:
    """A percentile is one of the values: the smallest that so many do not pass."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert math.isnan(percentile([], 0.5))


def test_clients_alternate() -> None:
    """The rounds of the clients alternate: A B A B."""
    steps = list(plan(["stream"], FULL, ["ctxcache", "aiohttp"], 2))
    assert [(round_, client) for _, round_, client, _ in steps] == [
        (0, "ctxcache"),
        (0, "aiohttp"),
        (1, "ctxcache"),
        (1, "aiohttp"),
    ]


@pytest.mark.parametrize("overran", [True, False])
def test_who_overran_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, overran: bool) -> None:
    """A case that took too long is left out of later rounds; one that failed otherwise is not."""
    asked: list[tuple[str, str]] = []
    told: list[str] = []

    def measure(scenario: str, client: str, cases: list[Case], *_: object, on_result: Any, **__: object) -> None:
        asked.extend((client, case.name) for case in cases)
        for case in cases:
            on_result({"case": case.name, "error": "x", "overran": overran and client == "ctxcache"})

    monkeypatch.setattr(run, "measure", measure)
    run.run(["stream"], TINY, command="", wanted=["ctxcache", "aiohttp"], asked=3, ends=told.append)
    assert asked.count(("ctxcache", "50 chunks")) == (1 if overran else 3)
    assert asked.count(("aiohttp", "50 chunks")) == 3
    assert len(told) == 6


def test_memory_is_measured_in_fresh_processes() -> None:
    """No case of the memory scenario shares a process with another."""
    assert all(len(cases) == 1 for *_, cases in plan(["memory"], FULL, ["ctxcache"], 1))


@pytest.mark.parametrize("client", PEERS[:2])
async def test_peers_open_no_more_than_they_can(client: str, port: int) -> None:
    """What would take a peer a quarter of an hour is left out for that peer before anything is opened."""
    assert await scenarios.load("memory").measure(client, port, Case("10,000 open", {"open": 10_000})) is None


@pytest.mark.parametrize("size", [FULL, QUICK, TINY])
def test_case_names_are_unique(size: object) -> None:
    """A case is found by its name: no scenario has two of one name, at any size."""
    for name in scenarios.NAMES:
        names = [case.name for case in scenarios.load(name).cases(size)]
        assert len(set(names)) == len(names) > 0


def test_uvloop_is_left_out_of_quick_runs() -> None:
    """A quick run leaves ctxcache on uvloop out, unless it is named."""
    stream = scenarios.load("stream")
    assert clients.UVLOOP not in chosen_clients(stream, QUICK, [])
    assert (clients.UVLOOP in chosen_clients(stream, QUICK, [clients.UVLOOP])) == is_there(clients.UVLOOP)
