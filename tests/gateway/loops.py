"""An event loop like that of another system."""

import asyncio
from typing import Any


class NoReaders(asyncio.SelectorEventLoop):
    """An event loop that cannot watch sockets, like Windows' default loop."""

    def add_reader(self, *_: Any) -> None:
        """Not here."""
        raise NotImplementedError

    def remove_reader(self, *_: Any) -> bool:
        """Not here."""
        raise NotImplementedError
