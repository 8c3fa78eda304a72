"""What the commands write on: stdout for what was asked for, stderr for what is said about it.

Each of the two is styled on its own, with rich, where it is a terminal and rich is installed; else it is plain text:
in pipes and files, with `NO_COLOR` set, and on a terminal that knows no styles. Styles change colours, never text.
"""

import io
import os
import shutil
import sys
from typing import TYPE_CHECKING, Final, TextIO

from ..models import Usage

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output", "Terminal", "one_line", "usage_line"]

_PLAIN_WIDTH: Final = 80
_WIDTHS: Final = (40, 100)  # narrower cannot be laid out, wider cannot be read
# A server's text may hold escape sequences; on a terminal they are shown as pictures and not obeyed. A carriage return
# would let it overwrite what stands on the line.
_CONTROL: Final = {
    **{code: 0x2400 + code for code in range(32)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): None,
}


class Output:
    """One of the two streams.

    Attributes:
        is_terminal: whether somebody looks at it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None where the shell closed it: `>&-`
        self._in_line = False
        self.is_terminal = stream is not None and stream.isatty()
        self._console = _console(stream) if stream is not None and self.is_terminal else None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an answer may hold what the locale cannot write

    def write(self, text: str, style: str = "") -> None:
        """Write a text at once, styled where that is possible (styles are rich's: `bold`, `dim red`, …)."""
        if self._stream is None or not text:
            return
        self._in_line = not text.endswith("\n")
        if self.is_terminal:
            text = text.translate(_CONTROL)
        if self._console is not None and style:
            self._console.print(text, style=style, end="", soft_wrap=True, markup=False, highlight=False, emoji=False)
        else:
            self._stream.write(text)
        self._stream.flush()

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line."""
        self.write(text, style)
        self.write("\n")

    def end_line(self) -> None:
        """Go to the beginning of a line, if that is not where the text so far ended."""
        if self._in_line:
            self.write("\n")

    def abandon(self) -> None:
        """Give the stream up: nobody can read it, and what is left in its buffer must not be an error at the exit."""
        try:
            if self._stream is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        except (OSError, ValueError):
            pass  # a stream without a file behind it, as in tests


class Terminal:
    """Both streams of a command, and how errors look."""

    def __init__(self) -> None:
        self.out = Output(sys.stdout)
        self.err = Output(sys.stderr)

    @property
    def width(self) -> int:
        """Columns to lay out text in."""
        columns = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if self.out.is_terminal else _PLAIN_WIDTH
        return min(max(columns, _WIDTHS[0]), _WIDTHS[1])

    def error(self, text: str) -> None:
        """Say on stderr, in one line, what went wrong; half an answer on stdout is given its line end before."""
        self.out.end_line()
        self.err.write("ctxcache: ", "bold red")
        self.err.line(one_line(text))

    def note(self, text: str) -> None:
        """Say something beside the matter, on stderr."""
        self.out.end_line()
        self.err.line(one_line(text), "dim")

    def flush(self) -> None:
        """Write what others left in the buffers (argparse prints its help itself)."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()

    def abandon(self) -> None:
        """Give up both streams: one of them has no reader any more."""
        self.out.abandon()
        self.err.abandon()


def _console(stream: TextIO) -> "Console | None":
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        return None
    try:
        from rich.console import Console  # optional, and not needed for what is piped
    except ImportError:
        return None
    return Console(file=stream)


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters."""
    return " ".join(text.split()).translate(_CONTROL)


def usage_line(usage: Usage | None) -> str:
    """Return a usage in words; cached tokens are part of the prompt's."""
    if usage is None:
        return "the service sent no usage"
    prompt = f"{usage.prompt_tokens:,} tokens in ({usage.cached_tokens:,} cached + {usage.fresh_tokens:,} new)"
    return f"{prompt}, {usage.completion_tokens:,} out"
