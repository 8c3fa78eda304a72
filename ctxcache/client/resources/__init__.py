"""One file an endpoint, thin."""

from .chat import ChatEndpoint
from .context import ContextEndpoint

__all__ = ["ChatEndpoint", "ContextEndpoint"]
