"""Many questions over one prefix: `Map`, which asks them, and `Answer`, what becomes of each."""

from .answers import Answer
from .map import Map

__all__ = ["Answer", "Map"]
