"""`ctxcache docs`."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache.cli.docs import TOPICS, page

Run = Callable[..., Any]


def test_topics_are_listed(run: Run) -> None:
    """Without a topic, all are listed with the titles of their pages."""
    code, out, err = run("docs")
    assert (code, err) == (0, "")
    for topic in TOPICS:
        assert re.search(
            rf"^  {topic} +{re.escape(page(topic).splitlines()[0].removeprefix('# '))}$", out, re.MULTILINE
        )
    assert max(map(len, out.splitlines())) < 80


def test_a_page_in_a_pipe(run: Run) -> None:
    """In a pipe a page is its Markdown."""
    assert run("docs", "costs") == (0, page("costs"), "")


def test_a_page_on_a_terminal(on_terminal: Callable[..., Any]) -> None:
    """On a terminal a page is laid out: no fences, no marks of emphasis."""
    pytest.importorskip("rich")
    terminal = on_terminal("docs", "costs")
    assert terminal.wait() == 0
    assert "What caching costs and saves" in terminal.shown
    assert "\x1b[" in terminal.shown
    assert "```" not in terminal.shown
    assert "**" not in terminal.shown


def test_an_unknown_topic(run: Run) -> None:
    """A topic that does not exist is bad usage; the error lists those that do."""
    code, out, err = run("docs", "cost")
    assert (code, out) == (2, "")
    assert "costs" in err.replace("'cost'", "")


def test_llms_txt(run: Run) -> None:
    """`--llms` prints all pages as one text in the form of llms.txt: a title, a summary, the pages."""
    code, out, err = run("docs", "--llms")
    assert (code, err) == (0, "")
    assert out.startswith("# ctxcache\n\n> ")
    for topic in TOPICS:
        assert page(topic) in out
