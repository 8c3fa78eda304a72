"""Create and chat, with the faults that strike a call. Without faults, a call is passed on and nothing else happens."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from ...errors import APIStatusError
from ...wire import CHAT_PATH, CREATE_PATH
from ..bodies import Headers, Routes
from ..contexts import Contexts
from ..endpoints import Endpoints
from .plan import Plan
from .record import RecordedCall
from .spoiled import CutError, SpoiledCall

__all__ = ["FaultyEndpoints"]


class FaultyEndpoints:
    """The endpoints of a gateway that can be told to fail.

    Args:
        endpoints: the endpoints as they should be.
        plan: the faults that are set.
        contexts: the contexts.
        now: tells seconds, for the faults that count a minute.
        sleep: waits seconds.
        watch: called with the record of each call when the call begins; None keeps no record.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        plan: Plan,
        contexts: Contexts,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        watch: Callable[[RecordedCall], object] | None = None,
    ) -> None:
        self._endpoints: Final = endpoints
        self._plan: Final = plan
        self._contexts: Final = contexts
        self._now: Final = now
        self._sleep: Final = sleep
        self._watch: Final = watch
        self._count = 0

    @property
    def routes(self) -> Routes:
        """The methods and the handler of each path."""
        return {
            **self._endpoints.routes,
            CREATE_PATH: (("POST",), self._create),
            CHAT_PATH: (("POST",), self._chat),
        }

    # No coroutines of their own: a call without faults is that of the endpoints.

    def _create(self, request: web.BaseRequest, headers: Headers) -> Awaitable[web.StreamResponse]:
        if self._plan or self._watch:
            return self._spoil("create", self._endpoints.create, request, headers)
        return self._endpoints.create(request, headers)

    def _chat(self, request: web.BaseRequest, headers: Headers) -> Awaitable[web.StreamResponse]:
        if self._plan or self._watch:
            return self._spoil("chat", self._endpoints.chat, request, headers)
        return self._endpoints.chat(request, headers)

    async def _spoil(
        self,
        endpoint: str,
        handle: Callable[..., Awaitable[web.StreamResponse]],
        request: web.BaseRequest,
        headers: Headers,
    ) -> web.StreamResponse:
        settings = self._plan.strike(endpoint)
        self._count += 1
        kinds = tuple(setting.fault.kind for setting in settings)
        record = RecordedCall(number=self._count, endpoint=endpoint, began=time.monotonic(), faults=kinds)
        if self._watch is not None:
            self._watch(record)
        call = SpoiledCall(request, headers, settings, record, self._contexts, self._now, self._sleep)
        try:
            return call.spoil(await handle(request, headers, call.handling))
        except CutError:
            return call.cut_answer()
        except APIStatusError as error:
            call.refused(error)
            raise
        except asyncio.CancelledError:
            call.cancelled()
            raise
        finally:
            call.leave(time.monotonic())
