"""The examples in docstrings of pure modules."""

import doctest
import importlib

import pytest

PURE = [
    "ctxcache.checks",
    "ctxcache.fold",
    "ctxcache.gateway.rules.tokens",
    "ctxcache.managed.costs",
    "ctxcache.retry",
    "ctxcache.sse",
]


@pytest.mark.parametrize("name", PURE)
def test_examples_in_docstrings(name: str) -> None:
    """Every example of a module gives the answer it shows, and there is one."""
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.FAIL_FAST)
    assert (found.failed, found.attempted > 0) == (0, True)
