"""The check of coverage by a module's own tests."""

import re

import pytest

from .own_coverage import ALLOWED, function_lines, own_tests


@pytest.mark.parametrize(
    ("module", "test", "own"),
    [
        ("client/stream.py", "tests/client/test_stream.py::test_text|run", True),
        ("client/stream.py", "tests/client/test_stream_ends.py::TestClosing::test_early[1]|setup", True),
        ("client/stream.py", "/somewhere/tests/client/test_stream.py::test_text|run", True),
        ("client/stream.py", "tests/managed/test_stream.py::test_text|run", False),
        ("client/stream.py", "tests/client/test_streams.py::test_text|run", False),
        ("sse.py", "tests/test_sse.py::test_cut|run", True),
        ("sse.py", "tests/test_sse_encoding.py::test_form|run", True),
        ("__init__.py", "tests/test_public_api.py::test_names|run", True),
    ],
)
def test_own_tests(module: str, test: str, own: bool) -> None:
    """A module's own tests are those of its name, beside it; a few have another name."""
    assert bool(re.search(own_tests(module), test)) == own


def test_only_bodies_of_functions_count() -> None:
    """The lines of an import, a class, a decorator and a `def` are left out; nested functions are not."""
    source = """import os
class A:
    x = 1
    @property
    def y(
        self,
    ):
        def z():
            return 1
        return z
"""
    assert function_lines(source) == {8, 9, 10}


def test_every_exception_has_a_reason() -> None:
    """A module on the list misses something, and the list says why."""
    for module, (count, reason) in ALLOWED.items():
        assert count > 0, module
        assert len(reason.split()) > 2, module
