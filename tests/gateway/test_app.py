"""Every request: ids, route, key, log."""

import re
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from ctxcache.config import Secret
from ctxcache.gateway import MODELS, ScriptedEngine
from ctxcache.gateway.app import App
from ctxcache.gateway.bodies import Bodies
from ctxcache.gateway.contexts import Contexts
from ctxcache.gateway.endpoints import Endpoints
from ctxcache.gateway.rules.clients import Clients
from ctxcache.gateway.rules.table import ContextTable

from .raw import KEY, PYTHON_PARSER

MODEL = MODELS[0]


async def test_health_needs_no_key(api: Any) -> None:
    """`GET /healthz` answers without a key that the gateway is up, and nothing more."""
    url = api.gateway.base_url.removesuffix("/v1") + "/healthz"
    answer = await api.request("GET", url)
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert (await api.request("HEAD", url)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"])
async def test_a_wrong_method_is_405(api: Any, method: str) -> None:
    """A wrong method is an error in the envelope that names the allowed methods."""
    answer = await api.request(method, f"{api.gateway.base_url}/context/create", headers=api.key)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    assert method == "HEAD" or answer.error["code"] == "InvalidParameter"


@pytest.mark.parametrize("path", ["", "/", "/context", "/context/create/", "/chat/completions", "/%00%zz"])
async def test_an_unknown_path_is_404(api: Any, path: str) -> None:
    """The error of an unknown path has a code that no client reads as an expired context."""
    answer = await api.post(path, {})
    assert (answer.status, answer.error["code"]) == (404, "InvalidAction")


async def test_a_query_does_no_harm(api: Any) -> None:
    """A query string is ignored."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    assert (await api.post("/context/create?a=b", body)).status == 200


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"OPTIONS * HTTP/1.1", 404),
        (b"CONNECT x:80 HTTP/1.1", 404),
        (b"GET /%zz%ff HTTP/1.1", 404),
        (b"TRACE /healthz HTTP/1.1", 405),
        (b"BREW /healthz HTTP/1.1", 405 if PYTHON_PARSER else 400),
        (b"GET http://elsewhere/v1/models HTTP/1.1", 401),
    ],
)
async def test_odd_request_lines(raw: Any, line: bytes, status: int) -> None:
    """Odd request lines get the status that fits."""
    assert (await raw(line + b"\r\nHost: localhost\r\n\r\n"))[0] == status


@pytest.mark.parametrize(
    "sent",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic KEY", "KEY", "Bearer KEYx", "Bearer KE", "Bearer \xe9"],
)
async def test_a_wrong_key_is_401(api: Any, sent: str | None) -> None:
    """Every endpoint but the health check refuses a wrong key with `AuthenticationError`."""
    headers = {} if sent is None else {"Authorization": sent.replace("KEY", api.gateway.api_key)}
    for method, path in (("POST", "/context/create"), ("POST", "/context/chat/completions"), ("GET", "/models")):
        answer = await api.request(method, api.gateway.base_url + path, headers=headers)
        assert (answer.status, answer.error["code"]) == (401, "AuthenticationError")
        assert (answer.error["type"], answer.headers["WWW-Authenticate"]) == ("Unauthorized", "Bearer")


async def test_the_scheme_has_no_case(api: Any) -> None:
    """`bearer KEY` is accepted too."""
    headers = {"Authorization": f"bearer  {api.gateway.api_key} "}
    assert (await api.request("GET", f"{api.gateway.base_url}/models", headers=headers)).status == 200


async def test_a_key_that_is_not_text(raw: Any) -> None:
    """A key that is not UTF-8 is wrong, and a client's request id that is not UTF-8 is not repeated."""
    status, body = await raw(
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer \xff\xfe\r\nX-Client-Request-Id: \xff\r\n\r\n"
    )
    assert (status, body["error"]["code"]) == (401, "AuthenticationError")


async def test_every_answer_has_its_ids(api: Any) -> None:
    """Every response has both ids of the service and the client's; an error's message ends with the request's id."""
    created = await api.create()
    mine = {"X-Client-Request-Id": "mine-1"}
    answers = [
        await api.post("/context/create", {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}, mine),
        await api.post("/context/chat/completions", api.chat_body(created["id"], "hi"), mine),
        await api.post("/context/chat/completions", api.chat_body(created["id"], "hi", stream=True), mine),
        await api.post("/context/create", {}, mine),
        await api.post("/nowhere", {}, mine),
    ]
    for answer in answers:
        assert answer.headers["X-Client-Request-Id"] == "mine-1"
        assert re.fullmatch(r"021\d{13}[0-9a-f]{32}", answer.headers["X-Request-Id"])
        assert re.fullmatch(r"20241211104333[0-9A-F]{18}", answer.headers["X-Tt-Logid"])
    for answer in answers[3:]:
        assert answer.error["message"].endswith(f"Request id: {answer.headers['X-Request-Id']}")
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)


@pytest.mark.parametrize("sent", [None, "", "x" * 257, "\xe9"])
async def test_an_odd_client_request_id_is_not_echoed(api: Any, sent: str | None) -> None:
    """A client's request id is repeated only if short printable ASCII."""
    headers = {} if sent is None else {"X-Client-Request-Id": sent}
    answer = await api.request("GET", api.gateway.base_url.removesuffix("/v1") + "/healthz", headers=headers)
    assert answer.status == 200
    assert "X-Client-Request-Id" not in answer.headers


async def test_a_bug_is_a_500_in_the_envelope(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Any other failure is logged with the id of the request, and the client learns no details."""
    api = await start(randbelow=lambda _: 1 // 0)
    answer = await api.post("/context/create", {"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    assert (answer.status, answer.error["code"]) == (500, "InternalServiceError")
    assert "ZeroDivisionError" in caplog.text
    assert f"a request failed: {answer.headers['X-Request-Id']}" in caplog.messages
    assert "ivision" not in answer.body.decode()


@pytest.mark.parametrize("path", ["/a\u2028b", "/\x85", "/\udcff", "/\u202e", "/a\nb", "/\x1b[31m", "/%0Aforged"])
async def test_no_path_can_forge_a_line_of_the_log(
    raw: Any, clock: Any, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Each request is a single line of printable ASCII, whatever aiohttp's parser lets through."""
    await raw(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode("utf-8", "surrogateescape"))
    table = ContextTable({MODEL: 100}, clock, lambda _: 0)
    bodies = Bodies(table.measure, size=1000, seconds=5, memory=1000)
    app = App(Endpoints(Contexts(table), ScriptedEngine(), clock, bodies, 1), Clients.of_key(Secret(KEY)), clock)
    request: Any = make_mocked_request("GET\n", path)
    assert (await app.handle(request)).status == 404
    lines = [record.getMessage() for record in caplog.records if record.name == "ctxcache.gateway"]
    assert lines[-1].startswith("GET\\n /")
    assert [line for line in lines if not (line.isascii() and line.isprintable())] == []
