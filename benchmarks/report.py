"""RESULTS.md: the tables, the machine, the versions, the commit and the command."""

from collections.abc import Iterable
from pathlib import Path

from . import pictures, scenarios
from .accounting import BUSY_SHARE
from .analysis import added, ratio, shown, shown_series
from .cases import Metric, Scenario
from .clients import FLOOR, OURS
from .findings import finding
from .growth_curves import Line, lines
from .results import Results
from .targets import rows

__all__ = ["render", "targets_table", "write"]

_FILE = "RESULTS.md"
_REMARKS = Path(__file__).with_name("remarks.md")  # where the time goes, by profile: no run can say that by itself
_PICTURES = "pictures"
_REACHED = {True: "reached", False: "**not reached**", None: "not measured"}


def write(results: Results, folder: Path) -> None:
    """Write RESULTS.md and its pictures into a folder."""
    (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
    drawn = pictures.draw(results, folder / _PICTURES)
    (folder / _FILE).write_text(render(results, drawn), encoding="utf-8")


def render(results: Results, drawn: Iterable[str] = ()) -> str:
    """The report as Markdown; `drawn` names the scenarios that have a picture."""
    drawn = set(drawn)
    sections = [
        _head(results),
        "## Targets\n\n" + _about_targets() + targets_table(results),
        _REMARKS.read_text("utf-8").strip(),
        *(_section(results, scenarios.load(name), name in drawn) for name in results.scenarios() if name != "growth"),
        *([_growth(results, "growth" in drawn)] if "growth" in results.scenarios() else []),
        _server(results),
        _failures(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines_ = [head, ["---", *(["---:"] * (len(head) - 1))], *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines_)


def _head(results: Results) -> str:
    machine = results.machine
    facts = [
        ("command", f"`{results.command}`"),
        ("commit", results.commit or "unknown"),
        ("begun", f"{results.started}, took {results.seconds / 60:.0f} min"),
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['os']}"),
        (
            "other processes used",
            "unknown" if results.others is None else f"{results.others:.1%} of all cores meanwhile",
        ),
        ("versions", ", ".join(f"{name} {version}" for name, version in results.versions.items())),
    ]
    return (
        "# Results\n\nWritten by `python -m benchmarks`; do not edit. Each figure is the median of its rounds, with "
        "the range from the lowest to the highest in brackets. CPU is user and kernel time by the operating system's "
        "accounting, of the client's process only.\n\n" + table(("run", ""), facts)
    )


def _about_targets() -> str:
    return (
        "Ratios within this run, taken round by round: median, lowest and highest. A case has a row of its own, so "
        "that none hides behind another. Beside them what bare aiohttp reaches, which decodes nothing: no client on "
        "top of it can do better.\n\n"
    )


def targets_table(results: Results) -> str:
    """The targets, and whether they are reached."""
    body = (
        (
            row.what,
            row.asked,
            shown_series(row.found),
            _REACHED[row.reached],
            shown_series(row.floor) if row.floor else "",
        )
        for row in rows(results)
    )
    return table(("what", "target", "found", "", "bare aiohttp"), body)


def _section(results: Results, scenario: Scenario, drawn: bool) -> str:
    parts = [f"## {scenario.title}", scenario.about]
    if drawn:
        parts.append(_picture(finding(results, scenario.name), scenario.name))
    parts += [_matrix(results, scenario, metric) for metric in scenario.metrics if _has(results, scenario, metric)]
    for metric in scenario.metrics:
        if metric.over_floor:
            parts.append(_added(results, scenario, metric))
    return "\n\n".join(parts)


def _picture(title: str, name: str) -> str:
    return f"![{title}]({_PICTURES}/{name}.svg)"


def _has(results: Results, scenario: Scenario, metric: Metric) -> bool:
    return any(metric.key in sample.get("figures", {}) for sample in results.select(scenario.name))


def _matrix(results: Results, scenario: Scenario, metric: Metric) -> str:
    clients = results.clients(scenario.name)
    with_ratio = FLOOR in clients and OURS in clients and metric is scenario.metrics[0]
    body = []
    for case in results.cases(scenario.name):
        found = [results.series(scenario.name, case, client, metric.key) for client in clients]
        if any(found):
            cells = [case, *map(shown_series, found)]
            if with_ratio:
                cells.append(shown_series(ratio(results, scenario.name, case, metric.key, (OURS, FLOOR))))
            body.append(cells)
    head = [_label(metric), *clients, *([f"{OURS} ÷ {FLOOR}"] if with_ratio else [])]
    return table(head, body)


def _label(metric: Metric) -> str:
    return f"{metric.label}, {metric.unit}" if metric.unit else metric.label


def _added(results: Results, scenario: Scenario, metric: Metric) -> str:
    clients = [client for client in results.clients(scenario.name) if client != FLOOR]
    body = [
        [case, *(shown_series(added(results, scenario.name, case, metric.key, client)) for client in clients)]
        for case in results.cases(scenario.name)
    ]
    return table([f"{metric.label} added over bare aiohttp, {metric.unit}", *clients], body)


def _growth(results: Results, drawn: bool) -> str:
    scenario = scenarios.load("growth")
    found = lines(results)
    clients = list(dict.fromkeys(line.client for line in found))
    body = []
    for curve in dict.fromkeys(line.curve for line in found):
        cells = {line.client: line for line in found if line.curve == curve}
        body.append([curve, *(_line(cells[client]) if client in cells else "–" for client in clients)])
    picture = [_picture(finding(results, "growth"), "growth")] if drawn else []
    explained = "Cells: exponent (between the two largest sizes); cost of the smallest → of the largest."
    return "\n\n".join([f"## {scenario.title}", f"{scenario.about} {explained}", *picture, table(["", *clients], body)])


def _line(line: Line) -> str:
    costs = f"{shown(line.costs[0])} → {shown(line.costs[-1])} {line.unit}"
    return (
        f"**{line.exponent:.2f}** ({line.last_doubling:.2f}); {costs} for {line.sizes[0]:,.0f} → {line.sizes[-1]:,.0f}"
    )


def _server(results: Results) -> str:
    """How it is known that the server was not the bottleneck."""
    body = []
    for scenario in results.scenarios():
        shares = [sample["server"]["share"] for sample in results.select(scenario) if sample.get("server")]
        flagged = sum(1 for sample in results.select(scenario) if sample.get("flags"))
        if shares and scenario != "ceiling":
            body.append((scenario, f"{max(shares):.0%}", str(flagged)))
    flags = [
        f"- {sample['scenario']}, {sample['case']}, {sample['client']}: {'; '.join(sample['flags'])}"
        for sample in results.flagged()
    ]
    text = (
        "## Was the server the bottleneck?\n\nIt runs in a process of its own, on other cores than the client where "
        "there are some, and each sample carries its CPU share by the operating system's accounting and how many of "
        f"its paced chunks left late. Busier than {BUSY_SHARE:.0%} of a core, or late with more than 1% of its "
        "chunks, and the sample is flagged. What it can do at all is above, under “The server's ceiling”.\n\n"
        + table(("scenario", "busiest", "flagged samples"), body)
    )
    return text + ("\n\n" + "\n".join(flags) if flags else "")


def _failures(results: Results) -> str:
    failed = [
        f"- {sample['scenario']}, {sample['case']}, {sample['client']}, round {sample['round'] + 1}: {sample['error']}"
        for sample in results.errors()
    ]
    return "## What could not be measured\n\n" + "\n".join(failed) if failed else ""
