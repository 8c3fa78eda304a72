"""The package's logger: one record is one line."""

import logging

import pytest

from ctxcache.log import log, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ctx-1 缓存", "ctx-1 缓存"),
        ("a\nERROR b", r"a\nERROR b"),
        ("a\r\x1b[2K\x00\x85\u2028", r"a\r\x1b[2K\x00\x85\u2028"),
        ("\ud800", r"\ud800"),
        ("", ""),
    ],
)
def test_one_line(text, shown):
    """Unprintable characters are escaped, and the rest of a text is kept."""
    assert one_line(text) == shown


def test_records_are_escaped(caplog):
    """Whatever is logged with the package's logger stays on one line; numbers and errors stay what they are."""
    caplog.set_level(logging.DEBUG, logger="ctxcache")
    log.info("context %s: ttl %.0f s", "ctx\n-1", 3600.0)
    logging.getLogger("ctxcache").info("%(id)s", {"id": "x"})
    log.info("nothing to fill in")
    assert [record.getMessage() for record in caplog.records] == [
        "context ctx\\n-1: ttl 3600 s",
        "x",
        "nothing to fill in",
    ]
