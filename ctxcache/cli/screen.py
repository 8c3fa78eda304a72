"""The demo's layout: headings, facts, and streamed text that is wrapped as it arrives."""

import re
import textwrap
from typing import Final

from .terminal import Terminal

__all__ = ["Paragraph", "Screen"]

_LABEL: Final = 11  # columns of indent and label
_LONGEST_PIECE: Final = 10
_WORDS: Final = re.compile(r"\s+|\S+")


def _margin(label: str) -> str:
    return f"  {label:<{_LABEL - 2}}"


class Paragraph:
    """A labelled paragraph whose text arrives in pieces.

    Written text cannot be taken back, and a word may arrive in several pieces. So a word begins on a new line if the
    current line is nearly full, and only a word longer than the rest of its line is broken.
    """

    def __init__(self, terminal: Terminal, label: str, style: str = "") -> None:
        self._out = terminal.out
        self._width = terminal.width
        self._style = style
        self._column = _LABEL
        self._in_word = False
        self._out.write(_margin(label), "bold")

    def write(self, text: str) -> None:
        """Write a piece."""
        for word in _WORDS.findall(text):
            if word.isspace():
                self._in_word = False
                continue
            space = "" if self._in_word or self._column == _LABEL else " "
            fits = self._width - 1 if self._in_word else self._width - _LONGEST_PIECE
            if self._column > _LABEL and self._column + len(space) + len(word) > max(fits, _LABEL + 1):
                self._out.write("\n" + " " * _LABEL)
                self._column, space = _LABEL, ""
            self._out.write(space + word, self._style)
            self._column += len(space) + len(word)
            self._in_word = True

    def end(self) -> None:
        """End the paragraph."""
        self._out.write("\n")


class Screen:
    """Writes the parts of the demo."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._section = 0

    def heading(self, text: str) -> None:
        """Begin the next section."""
        self._section += 1
        self.terminal.out.line()
        self.terminal.out.line(f"{self._section}. {text}", "bold cyan")

    def paragraph(self, label: str, text: str, style: str = "") -> None:
        """Write a whole paragraph."""
        out = self.terminal.out
        out.write(_margin(label), "bold" if label else "")
        for number, line in enumerate(textwrap.wrap(text, self.terminal.width - _LABEL, break_on_hyphens=False)):
            out.line(line if number == 0 else " " * _LABEL + line, style)

    def begin(self, label: str, style: str = "") -> Paragraph:
        """Begin a paragraph of streamed text."""
        return Paragraph(self.terminal, label, style)
