"""Pictures of a run: SVG without a background, in tones that can be read on white and on black."""

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import scenarios
from .analysis import shown
from .growth_curves import lines
from .results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "draw"]

INK: Final = "#7d8590"  # text and axes: a contrast of about 4 with white and 5 with GitHub's black
COLOURS: Final = {
    "ctxcache": "#2f81f7",
    "ctxcache+uvloop": "#8ab8ff",
    "openai": "#d29922",
    "ark": "#db61a2",
    "aiohttp": "#3fa34d",
    "httpx-sse": "#a371f7",
    "raw socket": "#7d8590",
}
_STYLE: Final[Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ctxcache",  # the same results, the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_WIDTH: Final = 9.0


def draw(results: Results, folder: Path) -> list[str]:
    """Draw a picture of each scenario; return the names of those drawn: none without matplotlib."""
    if find_spec("matplotlib") is None:
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn = []
    for name in results.scenarios():
        paint: Callable[[Results, str, Figure], bool] = _growth if name == "growth" else _bars
        with mpl.rc_context(_STYLE):
            figure = Figure(layout="constrained")
            if paint(results, name, figure):
                figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None, "Creator": None})
                drawn.append(name)
    return drawn


def _bars(results: Results, name: str, figure: "Figure") -> bool:
    """The first metric of a scenario: a group of bars a case, a bar a client, on a logarithmic scale."""
    from matplotlib.ticker import FuncFormatter

    scenario = scenarios.load(name)
    metric, clients, cases = scenario.metrics[0], results.clients(name), results.cases(name)
    series = {client: [results.series(name, case, client, metric.key) for case in cases] for client in clients}
    if not any(one.median > 0 for found in series.values() for one in found if one):
        return False
    height = 0.8 / len(clients)
    figure.set_size_inches(_WIDTH, 1.2 + 0.2 * len(cases) * (len(clients) + 1))
    axes = figure.subplots()
    for row, (client, found) in enumerate(series.items()):
        at = [index + (row - (len(clients) - 1) / 2) * height for index in range(len(cases))]
        medians = [one.median if one else math.nan for one in found]
        errors = [
            [one.median - one.low if one else 0 for one in found],
            [one.high - one.median if one else 0 for one in found],
        ]
        axes.barh(at, medians, height * 0.9, color=COLOURS[client], label=client, xerr=errors, ecolor=INK)
        for y, one in zip(at, found, strict=True):
            if one and one.median > 0:
                axes.annotate(
                    shown(one.median), (one.high, y), (4, 0), textcoords="offset points", va="center", fontsize=8
                )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    better = "more is better" if metric.more else "less is better"
    axes.set_xlabel(", ".join(filter(None, (metric.label, metric.unit, better))))
    _legend(axes, len(clients))
    return True


def _legend(axes: "Axes", columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=9)


def _growth(results: Results, name: str, figure: "Figure") -> bool:
    """Each curve in a panel of its own, both scales logarithmic; the dotted line is linear."""
    found = lines(results)
    curves = list(dict.fromkeys(line.curve for line in found))
    if not curves:
        return False
    columns = 3
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = math.ceil(len(curves) / columns)
    figure.set_size_inches(_WIDTH, 2.6 * rows + 0.4)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    handles: dict[str, Any] = {}
    for axes, curve in zip(panels, curves, strict=False):
        for line in found:
            if line.curve == curve:
                (handles[line.client],) = axes.plot(
                    line.sizes, line.costs, "o-", ms=3, lw=1.3, color=COLOURS[line.client]
                )
        _linear(axes, next(line for line in found if line.curve == curve))
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_tick))
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(curve, fontsize=9)
        axes.set_ylabel(next(line.unit for line in found if line.curve == curve), fontsize=8)
        axes.grid()
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9
    )
    return True


def _tick(value: float, _: int) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,g}" if value < 1e4 else f"{value / 1e3:g} k"


def _linear(axes: "Axes", line: Any) -> None:
    """A guide through the middle of a line, with exponent 1."""
    middle = len(line.sizes) // 2
    factor = line.costs[middle] / line.sizes[middle]
    axes.plot(line.sizes, [factor * size for size in line.sizes], ":", lw=1, color=INK)
