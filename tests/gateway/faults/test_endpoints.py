"""The way of a call through the faults."""

import asyncio
import logging
from typing import Any

import pytest

from ctxcache.gateway.faults.endpoints import FaultyEndpoints
from ctxcache.gateway.faults.fault import Fault
from ctxcache.gateway.faults.plan import Plan
from ctxcache.gateway.faults.record import RecordedCall
from ctxcache.wire import CHAT_PATH, CREATE_PATH

from .conftest import Client


class Endpoints:
    """Endpoints that answer with a mark, not a coroutine."""

    def __init__(self) -> None:
        self.routes = {"/models": (("GET",), None)}

    def create(self, request: Any, headers: Any) -> Any:
        """Answer."""
        return "created", request, headers

    def chat(self, request: Any, headers: Any) -> Any:
        """Answer."""
        return "answered", request, headers


def test_a_call_without_faults_is_that_of_the_endpoints() -> None:
    """Without a fault the handlers return what the endpoints return, and run no coroutine of their own."""
    plan = Plan(lambda _: None)
    made: Any = FaultyEndpoints
    routes = made(Endpoints(), plan, None, None, None).routes
    assert set(routes) == {"/models", CREATE_PATH, CHAT_PATH}
    for healed in (plan.set(Fault("evict")), None):
        plan.heal(healed)
        assert routes[CREATE_PATH][1](1, 2) == ("created", 1, 2)
        assert routes[CHAT_PATH][1](1, 2) == ("answered", 1, 2)
    plan.set(Fault("evict"))
    for path in (CREATE_PATH, CHAT_PATH):
        handling = routes[path][1](1, 2)
        assert asyncio.iscoroutine(handling)
        handling.close()


async def test_a_request_that_cannot_be_read_is_refused_first(client: Client) -> None:
    """A fault strikes no request that cannot be read, though the call counts."""
    fault = client.gateway.fail(503)
    assert (await client.send("/context/create", {"model": 5})).status == 400
    assert (await client.create()).status == 503
    assert fault.struck == 2


async def test_no_fault_is_logged_as_a_failure(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that was told to fail logs nothing above DEBUG."""
    caplog.set_level(logging.DEBUG)
    for line in ("fail=500", "outage,times=9", "disconnect=2", "truncate", "stall=1", "corrupt", "lose_reply"):
        with client.gateway.set_fault(line) as fault:
            await client.create()
            await client.chat()
            await client.stream()
        assert fault.struck == 3
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


async def test_every_call_is_recorded(start: Any) -> None:
    """With a watcher every call is recorded, faults or none, from the moment when the call begins."""
    seen: list[RecordedCall] = []
    api = await start(_watch=seen.append)
    await api.chat((await api.create())["id"])
    api.gateway.busy()
    await api.chat("ctx-unknown")
    assert [(call.number, call.endpoint, call.status, call.faults) for call in seen] == [
        (1, "create", 200, ()),
        (2, "chat", 200, ()),
        (3, "chat", 403, ("busy",)),
    ]
