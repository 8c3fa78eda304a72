"""Records, and a gateway in a thread."""

from collections.abc import Iterator

import pytest

from ctxcache.testing import RecordingGateway

from .records import Records


@pytest.fixture
def records() -> Records:
    """An empty record."""
    return Records()


@pytest.fixture
def gateway() -> Iterator[RecordingGateway]:
    """A gateway that keeps a record."""
    with RecordingGateway() as gateway:
        yield gateway
