"""One connection: aiohttp speaks HTTP, and bytes that are not HTTP are answered in the service's JSON too."""

import asyncio
import logging
from typing import Final

from aiohttp import web

from .app import App

__all__ = ["Connection"]

_log: Final = logging.getLogger("ctxcache.gateway.http")


def _demote(record: logging.LogRecord) -> bool:
    """Lower aiohttp's own errors to DEBUG: clients that break off (`App.handle` logs the gateway's failures)."""
    record.levelno, record.levelname = logging.DEBUG, logging.getLevelName(logging.DEBUG)
    return _log.isEnabledFor(logging.DEBUG)


_log.addFilter(_demote)


class Connection(web.RequestHandler):
    """The protocol of one connection, made by `loop.connect_accepted_socket`."""

    def __init__(self, server: web.Server, app: App) -> None:
        # Compressed bodies are refused, not unpacked: a small body stays small.
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            logger=_log,
            access_log=None,  # type: ignore[arg-type]  # aiohttp's way to have none
            auto_decompress=False,
        )
        self.__app: Final = app  # mangled: no attribute of aiohttp's class has this name

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that aiohttp's parser refused; `App.handle` raises nothing that would come here."""
        return self.__app.refuse_http(request)
