"""The plan: scenarios in turn, their clients alternating over the rounds, each measurement in a process of its own."""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from . import clients, relays, scenarios
from .accounting import Bystanders, pinned, split_cores
from .cases import FULL, Case, Scenario, Size
from .machine import commit, machine, versions
from .processes import load_server, measure
from .results import Results

Progress = Callable[[str], None]


def chosen_clients(scenario: Scenario, size: Size, wanted: Iterable[str]) -> list[str]:
    """The scenario's clients that are wanted and installed; no names: all, in a quick run without uvloop."""
    wanted = set(wanted) or {name for name in scenario.clients if size is FULL or not name.endswith("+uvloop")}
    return [name for name in scenario.clients if name in wanted and is_there(name)]


def is_there(name: str) -> bool:
    """Whether the client, relay or decoder of that name is installed; the raw socket always is."""
    if name in clients.NAMES:
        return clients.installed(name)
    if name in relays.NAMES:
        return relays.installed(name)
    return name == "raw socket" or find_spec("httpx_sse") is not None


def rounds(scenario: Scenario, size: Size, asked: int | None) -> int:
    """How often each client is measured."""
    return asked or (scenario.rounds if size is FULL and scenario.rounds else size.rounds)


def processes(scenario: Scenario, size: Size) -> list[list[Case]]:
    """The cases, by the process they are measured in."""
    cases = scenario.cases(size)
    together = [case for case in cases if not case.apart]
    return [*([together] if together else []), *([case] for case in cases if case.apart)]


def plan(
    names: Iterable[str], size: Size, wanted: Iterable[str], asked: int | None
) -> Iterator[tuple[str, int, str, list[Case]]]:
    """Every process of the run, in order: scenario, round, client, cases; the clients alternate."""
    for name in names:
        scenario = scenarios.load(name)
        for round_ in range(rounds(scenario, size, asked)):
            for cases in processes(scenario, size):
                for client in chosen_clients(scenario, size, wanted):
                    yield name, round_, client, cases


def run(
    names: list[str],
    size: Size,
    *,
    command: str,
    wanted: Iterable[str] = (),
    asked: int | None = None,
    begins: Progress = lambda _: None,
    ends: Progress = lambda _: None,
    saves: Callable[[Results], None] = lambda _: None,
) -> Results:
    """Make a run.

    Args:
        names: the scenarios.
        size: how much work.
        command: what was typed, for the record.
        wanted: the clients; none named: all.
        asked: rounds, instead of the size's.
        begins, ends: called with what is measured next, and with each result that has come.
        saves: called after each scenario with what there is, so that an hour's work is not lost.
    """
    client_cores, other_cores = split_cores()
    bystanders = Bystanders()
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    results = Results(size.name, command, commit(), started, machine(), versions())
    steps = list(plan(names, size, wanted, asked))
    overran: set[tuple[str, str, str]] = set()
    for name in names:
        patience = scenarios.load(name).patience
        with pinned(other_cores), load_server() as port:
            for _, round_, client, cases in (step for step in steps if step[0] == name):
                begins(f"{name}: {client}")

                def keep(result: dict[str, Any], name: str = name, client: str = client, round_: int = round_) -> None:
                    results.add(name, client, round_, result)
                    if result.get("overran"):
                        overran.add((name, client, result["case"]))
                    ends(f"{name}: {client}: {result['case']}")

                left = [case for case in cases if (name, client, case.name) not in overran]
                for _ in range(len(cases) - len(left)):
                    ends(f"{name}: {client}")
                if left:
                    measure(name, client, left, port, client_cores, seconds=patience, on_result=keep)
        results.seconds, results.others = round(time.monotonic() - clock, 1), bystanders.share()
        saves(results)
    return results
