"""`prefix`: the context is there when it is needed, calls are counted, arguments checked."""

import asyncio
from datetime import timedelta

import pytest

from ctxcache import (
    InternalServerError,
    InvalidInputError,
    Retry,
    SessionError,
    assistant,
    system,
    user,
)
from ctxcache.managed import Prefix, Prices

from ..conftest import MANUAL, MODEL
from ..service import TEXT


async def test_the_first_use_creates_the_context(prefix, service):
    """Nothing is sent before it; then one create in mode common_prefix, and the chat on it."""
    assert (service.creates, prefix.context, prefix.expires_at, prefix.model) == ([], None, None, MODEL)
    reply = await prefix.ask("How long is the warranty?")
    assert reply.text == TEXT
    assert service.creates == [
        {"model": MODEL, "messages": [{"role": "system", "content": MANUAL}], "mode": "common_prefix", "ttl": 3600}
    ]
    assert service.chats == [
        {
            "context_id": "ctx-1",
            "model": MODEL,
            "messages": [{"role": "user", "content": "How long is the warranty?"}],
            "stream": False,
        }
    ]
    assert prefix.context.id == "ctx-1"


async def test_further_uses_create_nothing(prefix, service):
    """One context serves them all."""
    for _ in range(3):
        await prefix.ask("?")
    async for _ in prefix.stream("?"):
        pass
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 4})


@pytest.mark.parametrize(
    ("question", "sent"),
    [
        ("Hi", [("user", "Hi")]),
        (system("Hi"), [("system", "Hi")]),
        ({"role": "user", "content": "Hi"}, [("user", "Hi")]),
        (
            [user("a"), assistant("b"), {"role": "user", "content": "c"}],
            [("user", "a"), ("assistant", "b"), ("user", "c")],
        ),
        (iter([user("a")]), [("user", "a")]),
    ],
)
async def test_what_a_question_may_be(prefix, service, question, sent):
    """A string is a user message, a message is one message, a list is sent as it is; twice, where that is needed."""
    service.fate("gone")
    await prefix.ask(question)
    expected = [{"role": role, "content": content} for role, content in sent]
    assert [chat["messages"] for chat in service.chats] == [expected, expected]


async def test_options_are_passed_on(prefix, service):
    """All the chat's options may be given, in any form, and are the same when the call is repeated."""
    service.fate("gone", "fine", "gone")
    await prefix.ask("?", temperature=0.5, stop=iter(["a", "b"]), extra_body={"seed": 1}, extra_headers={"X-A": "b"})
    async for _ in prefix.stream("?", n=1, stop=iter(["a", "b"])):
        pass
    first, second, third, fourth = service.chats
    assert (first["temperature"], first["stop"], first["seed"]) == (0.5, ["a", "b"], 1)
    assert {**first, "context_id": ""} == {**second, "context_id": ""}
    assert (third["n"], third["stop"]) == (1, ["a", "b"])
    assert {**third, "context_id": ""} == {**fourth, "context_id": ""}


async def test_a_stream_is_asked_for_its_usage(prefix, service):
    """Unless the caller says otherwise."""
    async for _ in prefix.stream("?"):
        pass
    async for _ in prefix.stream("?", stream_options={"include_usage": False}):
        pass
    assert [chat["stream_options"]["include_usage"] for chat in service.chats] == [True, False]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"context_id": "ctx-9"}, "context_id"),
        ({"model": "m"}, "model"),
        ({"messages": [user("?")]}, "messages"),
        ({"stream": True}, "stream"),
        ({"extra_body": {"context_id": "ctx-9"}}, "context_id"),
        ({"temperature": 9}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"retry": -3}, "retry"),
        ({"timeouts": "3"}, "timeouts"),
        ({"extra_headers": 3}, "extra_headers"),
    ],
)
@pytest.mark.parametrize("way", ["ask", "stream", "map"])
@pytest.mark.parametrize("warm", [False, True])
async def test_a_wrong_option_is_refused_by_name(prefix, service, options, field, way, warm):
    """Before anything is sent, a create included."""
    if warm:
        await prefix.warm()
    with pytest.raises(InvalidInputError) as caught:
        if way == "ask":
            await prefix.ask("?", **options)
        elif way == "stream":
            prefix.stream("?", **options)
        else:
            prefix.map(["?"], **options)
    assert field in caught.value.field
    assert (len(service.creates), service.chats) == (int(warm), [])


@pytest.mark.parametrize("question", [5, b"Hi", None, [], [5], {"role": "", "content": "?"}])
async def test_a_wrong_question_is_refused(prefix, service, question):
    """Before anything is sent, a create included."""
    with pytest.raises(InvalidInputError):
        await prefix.ask(question)
    with pytest.raises(InvalidInputError):
        prefix.stream(question)
    assert service.creates == []


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [assistant("?")]}, "messages[-1].role"),
        ({"messages": [{"role": "user", "content": "?", "what": object}]}, "messages[0].extra['what']"),
        ({"ttl": 5}, "ttl"),
        ({"margin": -1}, "margin"),
        ({"is_gone": 5}, "is_gone"),
        ({"clock": 5}, "clock"),
        ({"clock": None}, "clock"),
        ({"store": "contexts.db"}, "store"),
    ],
)
async def test_arguments_are_checked_when_it_is_made(prefix_for, settings, field):
    """What is out of its range is refused by name."""
    with pytest.raises(InvalidInputError) as caught:
        prefix_for(**settings)
    assert caught.value.field == field


def test_the_session_is_checked_and_not_shown():
    """Whatever is given in its place may hold a key."""
    with pytest.raises(InvalidInputError, match="session") as caught:
        Prefix("sk-secret", model=MODEL, messages=[user("?")])
    assert "sk-secret" not in str(caught.value)


async def test_warm_makes_the_context_now(prefix, service):
    """It is created once, and `ask` finds it."""
    context = await prefix.warm()
    assert (context.id, context.ttl, context.mode, context.usage.prompt_tokens) == ("ctx-1", 3600, "common_prefix", 100)
    assert await prefix.warm() is context
    await prefix.ask("?")
    assert len(service.creates) == 1


async def test_its_repr_says_which_context(prefix):
    """And nothing of its content."""
    assert repr(prefix) == f"<Prefix {MODEL} without a context>"
    await prefix.warm()
    assert repr(prefix) == f"<Prefix {MODEL} ctx-1>"


async def test_uses_slide_the_end(prefix, service, clock):
    """A context that is used in time is never created again, however long it lives."""
    for _ in range(5):
        await prefix.ask("?")
        assert prefix.expires_at == clock() + 3600
        clock.advance(3000)
        async with prefix.stream("?") as stream:
            [_ async for _ in stream]
        assert prefix.expires_at == clock() + 3600
        clock.advance(3000)
    assert len(service.creates) == 1


@pytest.mark.parametrize("way", ["ask", "stream", "warm"])
async def test_what_has_expired_is_not_called(prefix, service, clock, told, way):
    """Its time is known before the service says so: one create more, and no call that fails."""
    await prefix.ask("?")
    clock.advance(3570)
    assert (prefix.context, prefix.expires_at) == (None, None)
    if way == "ask":
        await prefix.ask("?")
    elif way == "stream":
        [_ async for _ in prefix.stream("?")]
    else:
        await prefix.warm()
    assert len(service.creates) == 2
    assert service.posts["ctx-1"] == 1
    (_, first), (name, event) = told
    assert first.context.id == "ctx-1"
    assert (name, event.context.id, event.old_id, event.reason) == ("on_recreate", "ctx-2", "ctx-1", "expired")


async def test_the_last_moment_before_the_margin_is_used(prefix, service, clock):
    """Nothing is created too soon."""
    await prefix.ask("?")
    clock.advance(3569)
    await prefix.ask("?")
    assert len(service.creates) == 1


async def test_a_call_that_failed_slides_nothing(prefix, service, clock):
    """Only an answer says that the context was used."""
    await prefix.warm()
    end = prefix.expires_at
    clock.advance(100)
    service.chatting.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await prefix.ask("?")
    assert prefix.expires_at == end


@pytest.mark.parametrize(("said", "seconds"), [(7200, 7200), (None, 3600), (1, 1), (0, 3600)])
async def test_the_service_s_own_ttl_counts(prefix, service, clock, said, seconds):
    """What it says, also where it is short; what was asked for, where it says nothing of use."""
    service.ttls.append(said)
    await prefix.warm()
    assert prefix.expires_at == clock() + seconds


async def test_a_ttl_may_be_a_timedelta(prefix_for, service, clock):
    """It is sent in seconds."""
    await prefix_for(ttl=timedelta(hours=2)).warm()
    assert service.creates[0]["ttl"] == 7200


async def test_a_ttl_left_out_is_not_sent(session, service, clock):
    """And the service's default is counted with, where it says nothing."""
    prefix = Prefix(session, model=MODEL, messages=[user("?")], clock=clock)
    service.ttls.append(None)
    await prefix.warm()
    assert "ttl" not in service.creates[0]
    assert prefix.expires_at == clock() + 86400


async def test_usage_and_cost_count_every_call_once(prefix, service, session):
    """Creates, answers and streams; the same sum as the session's."""
    await prefix.ask("?")
    async with prefix.stream("?") as stream:
        [_ async for _ in stream]
        [_ async for _ in stream]
    assert stream.done
    assert (prefix.usage.prompt_tokens, prefix.usage.cached_tokens, prefix.usage.completion_tokens) == (320, 200, 10)
    assert prefix.usage == session.usage
    cost = prefix.cost(Prices(1e6, 1e5, 2e6))
    assert (cost.calls, cost.total, cost.without) == (2, 120 + 20 + 20, 220 + 20)


async def test_a_stream_that_was_left_counts_as_a_call(prefix, service):
    """Its usage never came, and no other is made up."""
    service.streaming.clear()
    async with prefix.stream("?") as stream:
        async for _ in stream:
            break
    assert (prefix.usage.prompt_tokens, prefix.cost(Prices(1, 1, 1)).calls) == (100, 1)


async def test_no_cached_tokens_on_a_repeat_use_is_said_once(prefix, service, told, log_lines):
    """In the log and by the hook, with the likely reasons; the first use may well be the one that fills the cache."""
    service.cached = 0
    await prefix.ask("?")
    assert log_lines("WARNING") == []
    for _ in range(3):
        await prefix.ask("?")
    (line,) = log_lines("WARNING")
    assert "ctx-1" in line
    assert "not enabled" in line
    (event,) = [event for name, event in told if name == "on_warning"]
    assert (event.kind, event.message, event.context_id) == ("uncached", line, "ctx-1")


async def test_map_asks_them_all_over_one_context(prefix, service):
    """With its options; an error is a result."""
    answers = [answer async for answer in prefix.map((f"{n}?" for n in range(20)), ordered=True, temperature=0.5)]
    assert [answer.completion.text for answer in answers] == [TEXT] * 20
    assert (len(service.creates), service.posts) == (1, {"ctx-1": 20})
    assert {chat["temperature"] for chat in service.chats} == {0.5}


async def test_map_tells_of_its_retries(prefix, service, told):
    """The hook hears of a question that goes again."""
    service.fate("busy")
    [answer] = [answer async for answer in prefix.map(["?"], retry=Retry(first_delay=0.001))]
    assert answer.completion.text == TEXT
    (event,) = [event for name, event in told if name == "on_retry"]
    assert (event.path, event.context_id, event.attempt) == ("/context/chat/completions", "ctx-1", 1)


async def test_a_lost_reply_is_asked_for_again(prefix, service):
    """On a prefix that is harmless, so `repeatable` is True unless the caller says otherwise."""
    service.fate("broken")
    assert (await prefix.ask("?")).text == TEXT
    service.fate("broken")
    with pytest.raises(InternalServerError):
        await prefix.ask("?", repeatable=False)
    assert len(service.chats) == 3


async def test_after_the_session_it_is_over(prefix, session, service):
    """A closed session says so."""
    await prefix.warm()
    await session.aclose()
    with pytest.raises(SessionError):
        await prefix.ask("?")
    with pytest.raises(SessionError):
        await prefix.stream("?").open()


async def test_nothing_of_it_is_in_the_log(prefix, service, key, caplog):
    """Neither key nor prompt nor question nor answer."""
    caplog.set_level("DEBUG")
    await prefix.ask("A question of mine")
    service.expire()
    [_ async for _ in prefix.stream("A question of mine")]
    for secret in (key, MANUAL, "question of mine", TEXT):
        assert secret not in caplog.text
    assert "ctx-2" in caplog.text


@pytest.mark.parametrize("field", ["model", "messages"])
@pytest.mark.parametrize("way", ["ask", "stream", "map"])
async def test_extra_body_may_not_say_what_the_prefix_says(prefix, service, field, way):
    """What is in it wins over what is sent otherwise, so it would be another question, to another model."""
    with pytest.raises(InvalidInputError, match=field):
        if way == "ask":
            await prefix.ask("?", extra_body={field: "other"})
        else:
            getattr(prefix, way)("?" if way == "stream" else ["?"], extra_body={field: "other"})
    assert service.chats == []


async def test_map_repeats_what_may_have_run_only_where_that_is_allowed(prefix, service):
    """With `repeatable=False` a 500 is the answer, as it is for `ask`."""
    service.fate("broken")
    [answer] = [answer async for answer in prefix.map(["?"], repeatable=False, retry=Retry(first_delay=0.001))]
    assert isinstance(answer.error, InternalServerError)
    assert len(service.chats) == 1


async def test_map_does_not_repeat_what_the_create_has_repeated(prefix, service):
    """Each create is tried three times, for the eight questions that wait for it; not three times for each of them."""
    service.create_errors.extend([500] * 1000)
    answers = [answer async for answer in prefix.map((f"{n}?" for n in range(200)), concurrency=10)]
    assert {type(answer.error) for answer in answers} == {InternalServerError}
    assert len(service.creates) == 200 / 8 * 3
