"""Progress of a batch: a bar on a terminal with rich, elsewhere a line now and then, for a log."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from ..terminal import Output, Terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

__all__ = ["Lines", "Progress", "show_progress"]

_FEW: Final = 100  # fewer are done before anybody reads the log
_LINES: Final = 10
_LONGEST_SILENCE: Final = 10.0  # seconds
# Columns beside the bar, with room for the ^C that a terminal echoes: a wrapped line cannot be erased.
_BESIDE: Final = 66


class Progress(Protocol):
    """Called after each result."""

    def __call__(self, done: int, failed: int, cached: float | None) -> None:
        """Show the progress.

        Args:
            done: number of results, failures included.
            failed: number of failures.
            cached: share of the prompt tokens that came from the cache; None without prompt tokens.
        """
        ...


@asynccontextmanager
async def show_progress(terminal: Terminal, total: int, *, bar: bool = True) -> AsyncIterator[Progress]:
    """Show on stderr how many of `total` results have arrived: on a bar if `bar` and stderr allow, else in lines."""
    above = _AboveTheBar(sys.stderr)
    if above.console is None or not bar:
        lines = Lines(terminal, total)
        watch = asyncio.create_task(lines.watch())
        try:
            yield lines
        finally:
            watch.cancel()
            await asyncio.wait([watch])
        return
    drawn = _bar(above.console)
    usual, terminal.err = terminal.err, above
    try:
        with drawn:
            yield _on_bar(drawn, total)
    finally:
        terminal.err = usual


class Lines:
    """Writes a line for each tenth of the results, and while `watch` runs, at least one every 10 seconds.

    Args:
        terminal: gets the lines, as remarks.
        total: number of results.
        clock: monotonic seconds.
        sleep: waits some seconds.
    """

    def __init__(
        self,
        terminal: Terminal,
        total: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._terminal = terminal
        self._total = total
        self._step = max(total // _LINES, 1)
        self._clock = clock
        self._sleep = sleep
        self._shown_at = clock()
        self._state: tuple[int, int, float | None] = (0, 0, None)

    def __call__(self, done: int, failed: int, cached: float | None) -> None:
        """Show the progress, if this result completes a tenth."""
        self._state = (done, failed, cached)
        if self._total >= _FEW and done % self._step == 0 and done < self._total:
            self._show()

    async def watch(self) -> None:
        """Break each silence of 10 seconds; runs until it is cancelled, or stderr fails."""
        with suppress(OSError):
            while True:
                wait = self._shown_at + _LONGEST_SILENCE - self._clock()
                if wait > 0:
                    await self._sleep(wait)
                else:
                    self._show()

    def _show(self) -> None:
        done, failed, cached = self._state
        self._shown_at = self._clock()
        self._terminal.note(f"{done:,} of {self._total:,}{_failed(failed)}{_cached(cached)}")


def _failed(failed: int) -> str:
    return f", {failed:,} failed" if failed else ""


def _cached(cached: float | None) -> str:
    return "" if cached is None else f", {cached:.0%} cached"


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
        TextColumn("{task.fields[label]}", style="dim"),
        TimeRemainingColumn(),
        TextColumn("left", style="cyan"),
        console=console,
        transient=True,
        speed_estimate_period=30,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _on_bar(bar: "Bar", total: int) -> Progress:
    task = bar.add_task("", total=total, label="")

    def show(done: int, failed: int, cached: float | None) -> None:
        bar.update(task, completed=done, label=f"{_cached(cached)}{_failed(failed)}".removeprefix(", "))

    return show


class _AboveTheBar(Output):
    """Writes whole lines above the bar, through rich, which would overwrite other output."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._pending = ""

    @property
    def console(self) -> "Console | None":
        """The console for the bar, or None if the stream cannot show one."""
        return self._console

    def write(self, text: str, style: str = "") -> None:
        """Write the lines that are complete."""
        *lines, self._pending = (self._pending + text).split("\n")
        for line in lines:
            super().write(f"{line}\n", style or "default")  # a style sends the line through rich
