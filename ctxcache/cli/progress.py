"""How far a long command is: a bar on a terminal, with rich; elsewhere a line now and then, for a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from .terminal import Output, Terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

__all__ = ["Progress", "show_progress"]

_FEW: Final = 100  # so many are done before a log would be read
_LINES: Final = 10
# What stands beside the bar, and room for the ^C that a terminal echoes there: a line that wraps cannot be erased.
_BESIDE: Final = 66


class Progress(Protocol):
    """Is told after each result."""

    def __call__(self, done: int, failed: int, cached: float | None) -> None:
        """Show how far it is.

        Args:
            done: results so far, those that failed included.
            failed: those that failed.
            cached: of the prompt tokens, the share that came from the cache; None if there were none.
        """
        ...


@contextmanager
def show_progress(terminal: Terminal, total: int) -> Iterator[Progress]:
    """Show the progress of so many results, on stderr."""
    above = _AboveTheBar(sys.stderr)
    if above.console is None:
        yield _lines(terminal, total)
        return
    bar = _bar(above.console)
    usual, terminal.err = terminal.err, above
    try:
        with bar:
            yield _on_bar(bar, total)
    finally:
        terminal.err = usual


def _lines(terminal: Terminal, total: int) -> Progress:
    step = max(total // _LINES, 1)

    def tell(done: int, failed: int, cached: float | None) -> None:
        if total >= _FEW and done % step == 0 and done < total:
            terminal.note(f"{done:,} of {total:,}{_failed(failed)}{_cached(cached)}")

    return tell


def _failed(failed: int) -> str:
    return f", {failed:,} failed" if failed else ""


def _cached(cached: float | None) -> str:
    return "" if cached is None else f", {cached:.0%} cached".replace("%", " %")


def _bar(console: "Console") -> "Bar":
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        """Results a second."""

        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f}/s", style="cyan")

    return Bar(
        MofNCompleteColumn(),
        BarColumn(bar_width=min(max(console.width - _BESIDE, 8), 40)),
        Rate(),
        TextColumn("{task.fields[told]}", style="dim"),
        TimeRemainingColumn(),
        TextColumn("left", style="cyan"),
        console=console,
        transient=True,
        speed_estimate_period=30,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _on_bar(bar: "Bar", total: int) -> Progress:
    task = bar.add_task("", total=total, told="")

    def tell(done: int, failed: int, cached: float | None) -> None:
        bar.update(task, completed=done, told=f"{_cached(cached)}{_failed(failed)}".removeprefix(", "))

    return tell


class _AboveTheBar(Output):
    """Writes whole lines, above the bar: what rich does not write itself, it would overwrite."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._pending = ""

    @property
    def console(self) -> "Console | None":
        """Where the bar is drawn; None where there can be none."""
        return self._console

    def write(self, text: str, style: str = "") -> None:
        """Write what is whole lines by now."""
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            super().write(f"{line}\n", style or "default")  # with a style, it goes through rich
