"""The endpoints, thin: a file for each."""

from .chat import ChatEndpoint
from .context import ContextEndpoint

__all__ = ["ChatEndpoint", "ContextEndpoint"]
