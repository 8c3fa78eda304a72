"""One file an endpoint, thin."""

from .chat import Chat
from .context import Contexts

__all__ = ["Chat", "Contexts"]
