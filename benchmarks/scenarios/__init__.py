"""The scenarios, one file each; `load(name)` imports only that one, so that a worker's memory holds no other."""

import importlib
from typing import Final

from ..cases import Scenario

__all__ = ["NAMES", "load"]

NAMES: Final = (
    "ceiling",
    "decode",
    "stream",
    "paced",
    "live",
    "requests",
    "managed",
    "cluster",
    "first_token",
    "memory",
    "imports",
    "cancel_storm",
    "relay",
    "state",
    "growth",
)


def load(name: str) -> Scenario:
    """Import a scenario by its name."""
    scenario: Scenario = importlib.import_module(f"{__name__}.{name}").SCENARIO
    return scenario
