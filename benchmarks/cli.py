"""The command line: `python -m benchmarks`."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from . import clients, compare, relays, report, run, scenarios
from .cases import FULL, QUICK, SIZES, Size
from .decoders import HTTPX_SSE
from .machine import command
from .results import Results

_HERE: Final = Path(__file__).parent
_CLIENTS: Final = tuple(dict.fromkeys((*clients.NAMES, HTTPX_SSE, *relays.NAMES)))
_EPILOG: Final = """\
python -m benchmarks compare A.json B.json [--over-floor]    what changed beyond the noise
python -m benchmarks report A.json DIR                       RESULTS.md and pictures from results

A full run of all scenarios writes RESULTS.md and its pictures here, beside this package; any other run only where
--report says. The machine should be quiet: each client's process is pinned to one core, the server to the others.
"""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compare"]:
        return _compare(arguments[1:])
    if arguments[:1] == ["report"]:
        return _report(arguments[1:])
    return _run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "scenarios", nargs="*", metavar="scenario", help=f"of {', '.join(scenarios.NAMES)}; default: all"
    )
    parser.add_argument("--quick", action="store_true", help="two minutes in all: an impression, not a result")
    parser.add_argument("--size", choices=SIZES, default=FULL.name, help=argparse.SUPPRESS)
    parser.add_argument("--clients", default="", help=f"of {','.join(_CLIENTS)}; default: all installed")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"how often each client is measured; default: {FULL.rounds}, or what the scenario says",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write RESULTS.md and pictures here")
    return parser


def _run(arguments: list[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.scenarios if name not in scenarios.NAMES]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(scenarios.NAMES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds: at least 1")
    wanted = [name for name in options.clients.split(",") if name]
    strangers = [name for name in wanted if name not in _CLIENTS]
    if strangers:
        parser.error(f"no such client: {', '.join(strangers)}")
    size = QUICK if options.quick else SIZES[options.size]
    names = options.scenarios or list(scenarios.NAMES)
    wanting = [name for name in _CLIENTS if not run.is_there(name)]
    wanting += [] if find_spec("matplotlib") else ["matplotlib"]
    if wanting:
        told = f"left out, for they are not installed: {', '.join(wanting)}"
        print(f"{told}; pip install '.[bench]', nginx as the system has it", file=sys.stderr)
    results = _measured(names, size, wanted, options.rounds, command(arguments), options.json)
    folder = options.report or (_HERE if size is FULL and names == list(scenarios.NAMES) and not wanted else None)
    return _finish(results, folder)


def _measured(
    names: list[str], size: Size, wanted: list[str], rounds: int | None, typed: str, json_file: Path | None
) -> Results:
    steps = sum(len(cases) for *_, cases in run.plan(names, size, wanted, rounds))

    def save(results: Results) -> None:
        if json_file is not None:
            results.save(json_file)

    with _progress(steps) as (begins, ends):
        return run.run(names, size, command=typed, wanted=wanted, asked=rounds, begins=begins, ends=ends, saves=save)


@contextmanager
def _progress(steps: int) -> Iterator[tuple[run.Progress, run.Progress]]:
    """A bar that says what is being measured; drawn twice a second, so that it costs nothing."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as bar:
        task = bar.add_task("", total=steps)
        yield (lambda what: bar.update(task, description=what)), (lambda _: bar.advance(task))


def _finish(results: Results, folder: Path | None) -> int:
    if folder is not None:
        report.write(results, folder)
    print(report.render(results) if folder is None else report.targets_table(results))
    for sample in results.errors():
        print(f"failed: {sample['scenario']}, {sample['case']}, {sample['client']}: {sample['error']}", file=sys.stderr)
    return 1 if results.errors() else 0


def _compare(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks compare")
    parser.add_argument("old", type=Path, metavar="A.json")
    parser.add_argument("new", type=Path, metavar="B.json")
    parser.add_argument(
        "--over-floor", action="store_true", help="compare multiples of bare aiohttp's figures: for different machines"
    )
    options = parser.parse_args(arguments)
    old, new = Results.read(options.old), Results.read(options.new)
    print(compare.text(old, new, over_floor=options.over_floor))
    return 0


def _report(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks report")
    parser.add_argument("results", type=Path, metavar="A.json")
    parser.add_argument("folder", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    report.write(Results.read(options.results), options.folder)
    return 0
