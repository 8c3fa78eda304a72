"""Pictures of a run: SVG without a background, in tones that can be read on white and on black, at a phone's width.

A bar stands on a linear axis from zero, where its length means something. Where figures lie too far apart for that, the
axis is logarithmic and a figure is a dot, its range a line. The title is the finding.
"""

import math
import textwrap
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import scenarios
from .analysis import shown
from .bill import Bill, bill
from .findings import compared, finding
from .growth_curves import lines
from .results import Results, Series

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
    "aiohttp+uvloop": "#6cb878",
    "vllm-router": "#a371f7",
    "nginx": "#4aa8b0",
    "litellm": "#e06c5b",
}
_ITEMS: Final = ("#d29922", "#2f81f7", "#3fa34d")  # of a bill: the manual, the questions, the answers
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
_WIDTH: Final = 5.2  # inches, at 10 points: as wide as a phone, where nothing is scaled down
_LINE: Final = 0.2  # inches, of one row
_TITLE_COLUMNS: Final = 52
_LINEAR_UP_TO: Final = 20.0  # the largest figure over the smallest that a linear axis still shows


def draw(results: Results, folder: Path) -> list[str]:
    """Draw a picture of each scenario; return the names of those drawn: none without matplotlib."""
    if find_spec("matplotlib") is None:
        return []
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn = []

    def save(figure: Figure, name: str) -> None:
        figure.savefig(folder / f"{name}.svg", transparent=True, metadata={"Date": None, "Creator": None})

    with mpl.rc_context(_STYLE):
        figure = Figure(layout="constrained")
        _draw_bill(figure, bill())
        save(figure, "bill")
    for name in results.scenarios():
        paint: Callable[[Results, str, Figure], bool] = _growth if name == "growth" else _rows
        with mpl.rc_context(_STYLE):
            figure = Figure(layout="constrained")
            if paint(results, name, figure):
                save(figure, name)
                drawn.append(name)
    return drawn


def _rows(results: Results, name: str, figure: "Figure") -> bool:
    """The first metric of a scenario: a group of rows a case, a row a client."""
    metric = scenarios.load(name).metrics[0]
    groups = [(case, found) for case in compared(results, name) if (found := _figures(results, name, case, metric.key))]
    if not groups:
        return False
    medians = [series.median for _, found in groups for series in found.values()]
    linear = max(medians) <= _LINEAR_UP_TO * min(medians)
    height = len(medians) + (len(groups) if len(groups) > 1 else 0)
    _title(figure, finding(results, name), rows=height + 2)
    axes = figure.subplots()
    ticks: list[tuple[float, str]] = []
    group: Any = {"xycoords": ("axes fraction", "data"), "va": "center", "fontweight": "bold", "fontsize": 9}
    for y, label, series in _laid_out(groups):
        if series is None:
            axes.annotate(label, (0, y), xytext=(4, 0), textcoords="offset points", **group)
            continue
        ticks.append((y, label))
        text = shown(series.median) if metric.unit else f"{series.median:,.0f}"
        _row(axes, y, series, text, COLOURS[label], linear=linear)
    if not linear:
        axes.set_xscale("log")
        axes.set_xlim(min(medians) / 1.6, max(medians) * 4)
    else:
        axes.set_xlim(0, max(medians) * 1.25)
    _finish(axes, ticks, height)
    better = "more is better" if metric.more else "less is better"
    scale = "" if linear else "logarithmic"
    axes.set_xlabel(", ".join(filter(None, (metric.label, metric.unit, better, scale))))
    return True


def _figures(results: Results, name: str, case: str, metric: str) -> dict[str, Series]:
    found = {client: results.series(name, case, client, metric) for client in results.clients(name)}
    return {client: series for client, series in found.items() if series and series.median > 0}


def _laid_out(groups: list[tuple[str, dict[str, Series]]]) -> "Iterator[tuple[float, str, Series | None]]":
    """Each row from the top: the name of a case, where there are several, then its clients."""
    y = 0
    for case, found in groups:
        if len(groups) > 1:
            yield y, case, None
            y += 1
        for client, series in found.items():
            yield y, client, series
            y += 1


def _row(axes: "Axes", y: float, series: Series, text: str, colour: str, *, linear: bool) -> None:
    if linear:
        axes.barh(y, series.median, 0.7, color=colour)
    else:
        axes.plot([series.median], [y], "o", ms=6, color=colour)
    axes.plot([series.low, series.high], [y, y], "-", lw=1.2, color=INK if linear else colour)
    end = max(series.high, series.median)
    axes.annotate(text, (end, y), (6, 0), textcoords="offset points", va="center", fontsize=9)


def _title(figure: "Figure", sentence: str, rows: float) -> None:
    """Put the finding above a figure, and make the figure so many rows high below."""
    lines_ = textwrap.wrap(sentence, _TITLE_COLUMNS)
    figure.set_size_inches(_WIDTH, _LINE * (rows + 1.2 * len(lines_)) + 0.45)
    figure.suptitle("\n".join(lines_), x=0.01, ha="left", fontsize=10, fontweight="bold")


def _finish(axes: "Axes", ticks: list[tuple[float, str]], rows: int) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_yticks([y for y, _ in ticks], [label for _, label in ticks])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(rows - 0.4, -0.6)
    axes.grid(axis="x")
    axes.set_axisbelow(True)


def _draw_bill(figure: "Figure", made: Bill) -> None:
    """What the same questions cost with and without a context: a bar each, made of its items."""
    _title(figure, made.finding, rows=8)
    axes = figure.subplots()
    for y, items in enumerate((made.without, made.with_context)):
        left = 0.0
        for item, colour in zip(items, _ITEMS, strict=True):
            axes.barh(y, items[item], 0.6, left=left, color=colour, label=item if y == 0 else None)
            left += items[item]
        axes.annotate(f"{left:,.2f}", (left, y), (6, 0), textcoords="offset points", va="center", fontweight="bold")
    axes.set_xlim(0, 1.2 * sum(made.without.values()))
    _finish(axes, [(0, "without"), (1, "with")], 2)
    axes.set_xlabel(made.assumed, fontsize=8)
    figure.legend(loc="outside lower left", ncols=len(_ITEMS), frameon=False, fontsize=9)


def _growth(results: Results, name: str, figure: "Figure") -> bool:
    """Each curve in a panel of its own, both scales logarithmic; the dotted line is linear."""
    found = lines(results)
    curves = list(dict.fromkeys(line.curve for line in found))
    if not curves:
        return False
    columns = 2
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = math.ceil(len(curves) / columns)
    _title(figure, finding(results, name), rows=10.5 * rows + 1.5)
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
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    return True


def _tick(value: float, _: int) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value:,g}" if value < 1e4 else f"{value / 1e3:g} k"


def _linear(axes: "Axes", line: Any) -> None:
    """A guide through the middle of a line, with exponent 1."""
    middle = len(line.sizes) // 2
    factor = line.costs[middle] / line.sizes[middle]
    axes.plot(line.sizes, [factor * size for size in line.sizes], ":", lw=1, color=INK)
