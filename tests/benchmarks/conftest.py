"""What the tests of the suite share: the package beside `tests`, a load server, the size that only asks if it works."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Last, so that the tests see the installed ctxcache, not the folder's.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.processes import load_server


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """The port of a load server, in a process of its own."""
    with load_server() as port:
        yield port
