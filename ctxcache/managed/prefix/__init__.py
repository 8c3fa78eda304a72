"""A prompt that many calls share: `Prefix`, and how its context is found, created, shared and renewed."""

from .prefix import Prefix

__all__ = ["Prefix"]
