"""The demo's layout."""

import pytest

from ctxcache.cli.screen import Screen
from ctxcache.cli.terminal import Terminal

WORDS = "This is a scripted answer, with a few more words, so that it has to be wrapped. " * 3


@pytest.mark.parametrize("size", [1, 3, 8, 1000])
def test_streamed_text_is_wrapped(capsys: pytest.CaptureFixture[str], size: int) -> None:
    """However a text is cut, words of usual length stay whole, within the width, indented under the label."""
    paragraph = Screen(Terminal()).begin("answer")
    for start in range(0, len(WORDS), size):
        paragraph.write(WORDS[start : start + size])
    paragraph.end()
    first, *further = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert first.startswith("  answer   This")
    assert further
    assert all(line.startswith(" " * 11) and line[11] != " " for line in further)
    assert all(len(line) < 80 for line in [first, *further])
    assert " ".join([first, *further]).split()[1:] == WORDS.split()


def test_endless_word_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """A word longer than a line is broken without loss."""
    paragraph = Screen(Terminal()).begin("answer")
    for _ in range(30):
        paragraph.write("abcdefgh")
    paragraph.end()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert max(map(len, lines)) < 80
    assert "".join("".join(lines).split()) == "answer" + "abcdefgh" * 30


def test_whole_text_is_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """A whole text fills its lines."""
    Screen(Terminal()).paragraph("label", WORDS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split() == ["label", *WORDS.split()]


def test_headings_are_numbered(capsys: pytest.CaptureFixture[str]) -> None:
    """Sections are numbered from 1, each after a blank line."""
    screen = Screen(Terminal())
    screen.heading("First")
    screen.heading("Second")
    assert capsys.readouterr().out == "\n1. First\n\n2. Second\n"
