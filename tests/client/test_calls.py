"""The life of a call: what is repeated and what is not, POST by POST; pauses, ids and log lines."""

import asyncio
import re
from email.utils import formatdate

import pytest

from ctxcache import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    ContextBusyError,
    ContextGoneError,
    InternalServerError,
    Limits,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    Retry,
    SessionError,
)
from ctxcache.client.calls import outage_awaited
from ctxcache.client.environment import Environment

from ..hostile import (
    CHAT,
    CLOSE,
    CONTEXT,
    CREATE,
    SSE,
    STALL,
    STORY,
    STORY_TEXT,
    Hostile,
    answer,
    piece,
    refusal,
    streamed,
)

DOCUMENTED = [
    # status, code, class, repeated: "always", "harmless" (where repeating is harmless) or "never"
    *[
        (400, code, BadRequestError, "never")
        for code in (
            "MissingParameter",
            "MissingParameter.model",
            "InvalidParameter",
            "InvalidParameter.ttl",
            "OutofContextError",
            "SensitiveContentDetected",
            "SensitiveContentDetected.Severe",
            "InputTextSensitiveContentDetected",
            "OutputTextSensitiveContentDetected",
            "InvalidArgumentError",
            "InvalidArgumentError.x",
            "",
        )
    ],
    (401, "AuthenticationError", AuthenticationError, "never"),
    (403, "AccessDenied", PermissionDeniedError, "never"),
    (403, "AccountOverdueError", PermissionDeniedError, "never"),
    (403, "OperationDenied.ServiceNotOpen", PermissionDeniedError, "never"),
    (403, "OperationDenied.ServiceOverdue", PermissionDeniedError, "never"),
    (403, "OperationDenied.InvalidState", ContextBusyError, "always"),
    (404, "InvalidEndpointOrModel.NotFound", NotFoundError, "never"),
    (404, "ModelNotOpen", NotFoundError, "never"),
    (404, "UnsupportedModel", NotFoundError, "never"),
    (404, "NotFound.context_id", ContextGoneError, "never"),
    *[
        (429, code, RateLimitError, "always")
        for code in (
            "RateLimitExceeded.EndpointRPMExceeded",
            "ModelAccountRpmRateLimitExceeded",
            "ModelAccountTpmRateLimitExceeded",
            "APIAccountRpmRateLimitExceeded",
            "AccountRateLimitExceeded",
            "ServerOverloaded",
            "RequestBurstTooFast",
            "InflightBatchsizeExceeded",
            "",
        )
    ],
    (429, "QuotaExceeded", QuotaExceededError, "never"),
    (429, "SetLimitExceeded", QuotaExceededError, "never"),
    *[(status, "InternalServiceError", InternalServerError, "harmless") for status in (500, 502, 503, 504)],
    *[(status, "", InternalServerError, "harmless") for status in (500, 502, 503, 504, 529)],
]


@pytest.mark.parametrize(("status", "code", "kind", "repeated"), DOCUMENTED)
@pytest.mark.parametrize("how", ["chat", "repeatable", "stream", "create"])
async def test_the_table(hostile, session, status, code, kind, repeated, how):
    """Each row of the service's errors: its class, and as many POSTs as the row allows."""
    hostile.plays(*[[refusal(status, code, "no such luck", "X-Request-Id: r1", param="p", type="t")]] * 3)
    if how == "create":
        call = session.context.create(**CREATE)
    elif how == "stream":
        call = session.chat.stream(**CHAT).open()
    else:
        call = session.chat.create(**CHAT, repeatable=how == "repeatable")
    with pytest.raises(kind) as caught:
        await call
    error = caught.value
    assert type(error) is kind
    expected = 3 if repeated == "always" or (repeated == "harmless" and how in ("repeatable", "create")) else 1
    assert len(hostile.posts) == expected == error.attempts
    assert (error.status, error.code, error.param, error.type, error.request_id) == (status, code, "p", "t", "r1")
    assert isinstance(error, OutcomeUnknownError) == (repeated == "harmless")


@pytest.mark.parametrize(
    "script",
    [
        [refusal(429)],
        [refusal(403, "OperationDenied.InvalidState")],
        [refusal(403, "", "The specified context is in invalid state: InProgress.")],
        [answer(b"<html>", status="429 Slow")],
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_success_after_refusals(hostile, session, script, stream):
    """What did not run is sent again, the same body with the same id, and the answer is that of the last attempt."""
    hostile.plays(script, script, [streamed() if stream else answer()])
    if stream:
        assert "".join([text async for text in session.chat.stream(**CHAT).text()]) == STORY_TEXT
    else:
        assert (await session.chat.create(**CHAT)).text == "Hi"
    assert len(hostile.posts) == 3
    assert len({post.body for post in hostile.posts}) == 1
    assert len({post.headers["x-client-request-id"] for post in hostile.posts}) == 1


async def test_success_after_server_errors(hostile, session):
    """A create goes on after the service's failures; it is harmless."""
    hostile.plays([refusal(500)], [answer(b"", status="503 Busy")], [answer(CONTEXT)])
    assert (await session.context.create(**CREATE)).id == "ctx-1"
    assert len(hostile.posts) == 3


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_attempts(hostile, session_for, attempts):
    """`Retry.attempts` is the number of POSTs, the first included."""
    hostile.plays(*[[refusal(429)]] * 9)
    with pytest.raises(RateLimitError) as caught:
        await session_for(retry=Retry(attempts=attempts, first_delay=0)).chat.create(**CHAT)
    assert len(hostile.posts) == attempts == caught.value.attempts


async def test_ids_of_calls(hostile, session):
    """Each call has a client request id of its own, or the caller's."""
    hostile.plays(*[[answer()]] * 3)
    replies = [await session.chat.create(**CHAT) for _ in range(2)]
    replies.append(await session.chat.create(**CHAT, extra_headers={"x-client-request-id": "mine"}))
    ids = [post.headers["x-client-request-id"] for post in hostile.posts]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"
    assert [reply.client_request_id for reply in replies] == ids


async def test_id_of_the_session(hostile, session_for):
    """A client request id among the session's headers is used for each call."""
    hostile.plays([answer()])
    reply = await session_for(headers={"X-Client-Request-ID": "ours"}).chat.create(**CHAT)
    assert reply.client_request_id == "ours" == hostile.posts[0].headers["x-client-request-id"]


async def test_ids_of_answers(hostile, session):
    """Answers carry the service's ids."""
    ids = ("X-Request-Id: r1", "x-tt-LOGID: l1")
    hostile.plays([answer(CONTEXT, *ids)], [answer({"choices": [{"message": {}}]}, *ids)], [answer()])
    context = await session.context.create(**CREATE)
    reply = await session.chat.create(**CHAT)
    bare = await session.chat.create(**CHAT, serialize=False)
    assert (context.request_id, context.log_id) == ("r1", "l1") == (reply.request_id, reply.log_id)
    assert (bare.request_id, bare.log_id) == (None, None)
    assert reply.context_id == CHAT["context_id"]
    assert "context_id" not in reply.to_dict()


async def test_ids_of_errors(hostile, session):
    """Errors carry the service's ids, from the headers or else from the message."""
    hostile.plays(
        [refusal(400, "InvalidParameter", "no. Request id: from-message", "X-Request-Id: r1", "X-Tt-Logid: l1")],
        [refusal(400, "InvalidParameter", "no. Request id: from-message")],
    )
    for expected in (("r1", "l1"), ("from-message", None)):
        with pytest.raises(BadRequestError) as caught:
            await session.chat.create(**CHAT)
        assert (caught.value.request_id, caught.value.log_id) == expected
        assert expected[0] in str(caught.value)


async def test_ids_of_a_lost_reply(hostile, session):
    """A lost reply has no ids of the service: not those of the attempt before it."""
    hostile.plays([refusal(429, "", "slow", "X-Request-Id: r1", "X-Tt-Logid: l1")], [CLOSE])
    with pytest.raises(OutcomeUnknownError) as caught:
        await session.chat.create(**CHAT)
    error = caught.value
    assert (error.request_id, error.log_id, error.attempts) == (None, None, 2)
    assert error.client_request_id == hostile.posts[0].headers["x-client-request-id"]
    assert isinstance(error.cause, APIConnectionError)


# --- pauses -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def paused(session_for):
    """A session whose pauses take no time, and their list; the dice show 0.5, the time of day is 1,000,000."""

    def make(**settings):
        pauses = []

        async def sleep(seconds):
            pauses.append(seconds)

        environment = Environment(sleep=sleep, random=lambda: 0.5, now=lambda: 1_000_000.0)
        return session_for(environment=environment, **settings), pauses

    return make


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        (["Retry-After: 7"], 7),
        (["retry-after: 2.5"], 2.5),
        (["Retry-After-Ms: 1500"], 1.5),
        (["Retry-After-Ms: 1500", "Retry-After: 9"], 1.5),
        (["Retry-After-Ms: soon", "Retry-After: 9"], 9),
        ([f"Retry-After: {formatdate(1_000_030, usegmt=True)}"], 30),
        ([f"Retry-After: {formatdate(999_000, usegmt=True)}"], 0.75),
        (["Retry-After: 0"], 0.75),
        (["Retry-After: soon"], 0.75),
        (["Retry-After: -5"], 0.75),
        (["Retry-After: nan"], 0.75),
        (["Retry-After: inf"], 0.75),
        (["Retry-After:"], 0.75),
        ([], 0.75),
    ],
)
async def test_retry_after(hostile, paused, headers, pause):
    """The pause is what the service asks for, in seconds, milliseconds or as a date, but no less than our own."""
    session, pauses = paused(retry=Retry(first_delay=1))
    hostile.plays([refusal(429, "", "slow", *headers)], [answer()])
    await session.chat.create(**CHAT)
    assert pauses == [pytest.approx(pause)]


@pytest.mark.parametrize(
    "header", ["Retry-After: 61", "Retry-After-Ms: 60001", f"Retry-After: {formatdate(2e6, usegmt=True)}"]
)
async def test_too_long_a_retry_after(hostile, paused, header):
    """A pause longer than `max_retry_after` is raised, not slept, and stands on the error."""
    session, pauses = paused()
    hostile.plays([refusal(429, "", "slow", header)])
    with pytest.raises(RateLimitError) as caught:
        await session.chat.create(**CHAT)
    assert caught.value.retry_after > 60
    assert (pauses, len(hostile.posts)) == ([], 1)


async def test_back_off(hostile, paused):
    """Pauses double up to `max_delay`, jittered down to their half at most."""
    session, pauses = paused(retry=Retry(attempts=6, first_delay=1, max_delay=5))
    hostile.plays(*[[refusal(429)]] * 5, [answer()])
    await session.chat.create(**CHAT)
    assert pauses == [0.75, 1.5, 3, 3.75, 3.75]


async def test_an_outage_that_the_caller_awaits(paused):
    """Where the caller waits for the service itself, a call that finds no connection is not retried; others are."""
    async with Hostile() as server:
        session, pauses = paused(server=server)
    with pytest.raises(APIConnectionError) as caught:
        await session.chat.create(**CHAT)
    assert (caught.value.attempts, len(pauses)) == (3, 2)
    token = outage_awaited.set(True)
    try:
        with pytest.raises(APIConnectionError) as caught:
            await session.context.create(**CREATE)
    finally:
        outage_awaited.reset(token)
    assert (caught.value.attempts, len(pauses)) == (1, 2)


async def test_a_lost_reply_while_the_caller_awaits_outages(hostile, paused):
    """There, a reply that got lost is requested again as usual."""
    session, pauses = paused()
    hostile.plays([CLOSE], [answer(CONTEXT)])
    token = outage_awaited.set(True)
    try:
        await session.context.create(**CREATE)
    finally:
        outage_awaited.reset(token)
    assert (len(pauses), len(hostile.posts)) == (1, 2)


async def test_max_elapsed(hostile, paused):
    """No attempt begins later than `max_elapsed` after the first."""
    session, pauses = paused(retry=Retry(attempts=6, first_delay=1, max_elapsed=0.5))
    hostile.plays([refusal(429)])
    with pytest.raises(RateLimitError):
        await session.chat.create(**CHAT)
    assert pauses == []


async def test_no_connection_is_held_in_a_pause(hostile, session_for):
    """A call that pauses holds no slot: others go on."""
    session = session_for(limits=Limits(connections=1), retry=Retry(first_delay=30))
    hostile.plays([refusal(429)], [answer()])
    pausing = asyncio.ensure_future(session.chat.create(**CHAT))
    await hostile.until(lambda: hostile.posts and hostile.posts[0].connection.idle)
    assert (await session.chat.create(**CHAT)).text == "Hi"
    pausing.cancel()
    await asyncio.wait([pausing])


async def test_close_in_a_pause(hostile, session_for, log_lines):
    """`session.aclose()` ends a pause at once: the call gets an error, and nothing more is sent."""
    session = session_for(retry=Retry(first_delay=30, max_delay=30))
    hostile.plays([refusal(429)])
    pausing = asyncio.ensure_future(session.chat.create(**CHAT))
    await hostile.until(lambda: log_lines("WARNING"))
    await session.aclose()
    async with asyncio.timeout(1):
        with pytest.raises((SessionError, RateLimitError)):
            await pausing
    assert len(hostile.posts) == 1


# --- the log ----------------------------------------------------------------------------------------------------------

SECRETS = ("Hello", "Be brief", "Once", "Hi", "sk-test")


async def test_log_of_a_call(hostile, session, log_lines):
    """A call is one line at DEBUG: method, path, status, attempt, ids, times, tokens; never content, never the key."""
    usage = {"prompt_tokens": 8, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}}
    hostile.plays([answer({"choices": [{"message": {"content": "Hi"}}], "usage": usage}, "X-Request-Id: r1")])
    reply = await session.chat.create(**CHAT)
    (line,) = log_lines("DEBUG")
    assert line.startswith("POST /context/chat/completions status=200 attempt=1 request_id=r1 ")
    assert f"client_request_id={reply.client_request_id}" in line
    assert re.search(r" head=\d+\.\d{3}s end=\d+\.\d{3}s prompt=8 cached=5 completion=2$", line)
    assert log_lines("WARNING") == []
    assert not any(secret in line for secret in SECRETS)


@pytest.mark.parametrize("leave", ["end", "break", "error", "forget", "session"])
async def test_log_of_a_stream(hostile, session, log_lines, leave):
    """A stream is one line as well, at its end, however it ends, with the time to its first chunk."""
    hostile.plays([streamed()] if leave == "end" else [SSE, piece(STORY[0]), CLOSE if leave == "error" else STALL])
    stream = session.chat.stream(**CHAT)
    await anext(stream)
    if leave == "end":  # all of it has come, so the line may be there already
        async for _ in stream:
            pass
    else:
        assert log_lines("DEBUG") == []
    if leave == "error":
        with pytest.raises(Exception, match="interrupted"):
            await anext(stream)
    elif leave == "break":
        await stream.aclose()
    elif leave == "session":
        await session.aclose()
    elif leave == "forget":
        del stream
        await hostile.until(lambda: log_lines("DEBUG"))
    (line,) = log_lines("DEBUG")
    assert re.search(r"status=200 attempt=1 request_id=req-1 log_id=log-1 .* head=.*s first_chunk=.*s end=.*s", line)
    assert ("error=" in line) == (leave in ("error", "session"))
    assert not any(secret in line for secret in SECRETS)


async def test_log_of_retries(hostile, session, log_lines):
    """Each retry is a warning with what went wrong, the attempt and the pause."""
    hostile.plays([refusal(429, "", "Hello")], [refusal(403, "OperationDenied.InvalidState")], [answer()])
    await session.chat.create(**CHAT)
    first, second = log_lines("WARNING")
    assert re.search(r"RateLimitError, attempt 1 of 3, again in 0\.00 s \(client request id \w+\)", first)
    assert "ContextBusyError, attempt 2 of 3" in second
    (line,) = log_lines("DEBUG")
    assert "status=200 attempt=3" in line
    assert not any(secret in first + second + line for secret in SECRETS)


async def test_log_of_an_error(hostile, session, log_lines):
    """A call that failed is one line, with the class of its error."""
    hostile.plays([refusal(401)], [CLOSE])
    for kind in (AuthenticationError, OutcomeUnknownError):
        with pytest.raises(kind):
            await session.chat.create(**CHAT)
    refused, lost = log_lines("DEBUG")
    assert "status=401" in refused
    assert refused.endswith("error=AuthenticationError")
    assert "status=None" in lost
    assert lost.endswith("error=ReplyLostError")


async def test_no_log(hostile, session, caplog):
    """Above DEBUG nothing is logged of a call that went well."""
    caplog.set_level("INFO", logger="ctxcache")
    hostile.plays([answer()])
    await session.chat.create(**CHAT)
    assert caplog.records == []
