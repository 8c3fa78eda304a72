"""A process without file descriptors."""

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def no_file_descriptors() -> Iterator[None]:
    """Let this process open no more files."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
