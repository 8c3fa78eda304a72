"""Output of the commands: results on stdout, remarks and errors on stderr.

Each stream is styled with rich where it is a terminal and rich is installed. Pipes, files, terminals without styles and
`NO_COLOR` get plain text. Styles change colours, never text.
"""

import io
import os
import re
import shutil
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Output", "Terminal", "one_line"]

_PLAIN_WIDTH: Final = 80
_FENCED: Final = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_WIDTHS: Final = (40, 100)  # too narrow to lay out, too wide to read
# A terminal must not obey escape sequences in a server's text: they are shown as pictures. A carriage return would let
# the text overwrite its line.
_CONTROL: Final = {
    **{code: 0x2400 + code for code in range(32)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), "\ufffd"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    ord("\r"): None,
}


class Output:
    """Standard output or standard error.

    Attributes:
        is_terminal: whether the stream is a terminal.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None if the shell closed the stream: `>&-`
        self._in_line = False
        self.is_terminal = stream is not None and stream.isatty()
        self._console = _console(stream) if stream is not None and self.is_terminal else None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the locale may be unable to encode an answer

    def write(self, text: str, style: str = "") -> None:
        """Write and flush a text, in a style of rich: `bold`, `dim red`."""
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

    def markdown(self, text: str) -> None:
        """Write Markdown: laid out where the stream is styled, else as it is. Code stays fit to be copied."""
        if self._console is None:
            self.write(text)
            return
        from rich.markdown import Markdown  # slow to import

        width = min(self._console.width, _WIDTHS[1])
        for index, part in enumerate(_FENCED.split(text.translate(_CONTROL))):
            if index % 2:
                self.write(f"\n{part}\n", "cyan")
            elif part.strip():
                self._console.print(Markdown(part), width=width)

    def end_line(self) -> None:
        """End the line, unless the cursor is at the beginning of one."""
        if self._in_line:
            self.write("\n")

    def abandon(self) -> None:
        """Discard further output, and the buffer: flushing a broken stream at exit would be an error."""
        try:
            if self._stream is not None:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
        except (OSError, ValueError):
            pass  # no file descriptor, as in tests


class Terminal:
    """Both streams of a command."""

    def __init__(self) -> None:
        self.out = Output(sys.stdout)
        self.err = Output(sys.stderr)

    @property
    def width(self) -> int:
        """Columns for text layout."""
        columns = shutil.get_terminal_size((_PLAIN_WIDTH, 24)).columns if self.out.is_terminal else _PLAIN_WIDTH
        return min(max(columns, _WIDTHS[0]), _WIDTHS[1])

    def error(self, text: str) -> None:
        """Write an error to stderr, in one line; a half-written line on stdout is ended first."""
        self.out.end_line()
        self.err.write("ctxcache: ", "bold red")
        self.err.line(one_line(text))

    def note(self, text: str) -> None:
        """Write a remark to stderr, in one line."""
        self.out.end_line()
        self.err.line(one_line(text), "dim")

    def flush(self) -> None:
        """Flush both streams: argparse prints help without flushing."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()

    def abandon(self) -> None:
        """Discard further output on both streams: the reader of one has left."""
        self.out.abandon()
        self.err.abandon()


def _console(stream: TextIO) -> "Console | None":
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown"):
        return None
    try:
        from rich.console import Console  # optional, and not needed in a pipe
    except ImportError:
        return None
    return Console(file=stream)


def one_line(text: str) -> str:
    """Return the text in one line, with control and format characters made visible: they could forge other lines."""
    line = " ".join(text.split()).translate(_CONTROL)
    if line.isprintable():
        return line
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in line)
