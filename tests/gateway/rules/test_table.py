"""The table of contexts, with a clock that stands still."""

import gc
import random
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache.errors import APIStatusError
from ctxcache.gateway.rules.clients import Client
from ctxcache.gateway.rules.quota import Quota
from ctxcache.gateway.rules.refusals import context_not_found
from ctxcache.gateway.rules.served import AcceptedChat, ServedContext
from ctxcache.gateway.rules.table import MAX_REPLIES, ContextTable
from ctxcache.models import ChatRequest, ContextRequest, assistant, system, user

HOUR = 3600
RandBelow = Callable[[int], int]


@pytest.fixture
def table(clock: Any) -> ContextTable:
    """A table for two models with windows of 100 tokens."""
    return ContextTable({"m": 100, "other": 100}, clock, random.Random(1).randrange)


def create(table: ContextTable, **fields: Any) -> ServedContext:
    """Create a context of 3 tokens."""
    return table.create(ContextRequest(**{"model": "m", "messages": [system("abcd" * 3)], **fields}))


def begin(table: ContextTable, context: ServedContext, text: str = "abcd", **fields: Any) -> AcceptedChat:
    """Begin a chat of 1 token."""
    request = {"context_id": context.id, "model": "m", "messages": [user(text)], **fields}
    return table.begin(ChatRequest(**request))


def answer(call: AcceptedChat, *texts: str) -> Any:
    """Complete a chat; return prompt, completion, total and cached tokens."""
    for reply, text in zip(call.replies, texts, strict=True):
        reply.feed(text)
        reply.end()
    usage = call.complete()
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cached_tokens


def refused(status: int, code: str, param: str = "") -> Any:
    """Expect a refusal."""

    def check(error: APIStatusError) -> bool:
        return (error.status, error.code, error.param) == (status, code, param)

    return pytest.raises(APIStatusError, check=check)


# --- making them ------------------------------------------------------------------------------------------------------


def test_ids_have_the_time_and_five_characters(table: ContextTable) -> None:
    """An id is `ctx-`, the second of creation in UTC, and five lower-case letters or digits."""
    assert re.fullmatch(r"ctx-20241211104333-[0-9a-z]{5}", create(table).id)


@pytest.mark.parametrize("randbelow", [lambda _: 0, lambda below: below - 1])
def test_no_two_ids_are_alike(clock: Any, randbelow: RandBelow) -> None:
    """Ids are unique even if randomness repeats itself, or if a context of the same second is gone already."""
    table = ContextTable({"m": 100}, clock, randbelow)
    ids = []
    for _ in range(40):
        ids.append(create(table).id)
        table.expire(ids[-1])
    clock.now += 1
    ids += [create(table).id for _ in range(40)]
    clock.now -= 1  # a wall clock may
    ids += [create(table).id for _ in range(40)]
    assert len(set(ids[40:])) == 80
    assert len(set(ids[:40])) == 40
    assert all(re.fullmatch(r"ctx-\d{14}-[0-9a-z]{5}", name) for name in ids)


def test_what_was_left_out_gets_the_services_defaults(table: ContextTable) -> None:
    """The defaults are a session, a day and rolling tokens; the create is counted, nothing cached."""
    context = create(table)
    assert (context.mode, context.ttl) == ("session", 86400)
    assert context.window.strategy is not None
    assert context.window.strategy.type == "rolling_tokens"
    assert (context.usage.prompt_tokens, context.usage.total_tokens, context.usage.cached_tokens) == (3, 3, 0)


def test_an_unknown_model_is_refused(table: ContextTable) -> None:
    """Create and chat refuse an unknown model before any other check, with 404 `InvalidEndpointOrModel.NotFound`."""
    with refused(404, "InvalidEndpointOrModel.NotFound", "model"):
        create(table, model="x" * 200)
    with refused(404, "InvalidEndpointOrModel.NotFound", "model"):
        begin(table, create(table), model="none")


def test_messages_whose_tokens_the_engine_counts(table: ContextTable) -> None:
    """The number of characters refuses nothing; an unknown model and too many messages are refused."""
    request = ContextRequest(model="m", messages=[system("x" * 1000)])
    context = table.create(request, table.weigh(request))
    assert context.usage.prompt_tokens == 1
    with refused(404, "InvalidEndpointOrModel.NotFound", "model"):
        table.weigh(ContextRequest(model="none", messages=[user("x")]))
    with refused(400, "OutofContextError", "messages"):
        table.weigh(ContextRequest(model="m", messages=[user("x")] * 100))


def test_the_number_of_contexts_is_limited(clock: Any) -> None:
    """One context too many is refused as a quota, until another context is gone."""
    table = ContextTable({"m": 100}, clock, random.Random(1).randrange, Quota(max_contexts=2))
    first, _ = create(table), create(table)
    with refused(429, "QuotaExceeded"):
        create(table)
    table.expire(first.id)
    create(table)


# --- how long they live -----------------------------------------------------------------------------------------------


def test_a_context_lives_for_its_ttl(table: ContextTable, clock: Any) -> None:
    """The context is gone when its last second ends, not before, and the refusal says so."""
    context = create(table, ttl=HOUR)
    clock.now += HOUR - 1
    assert table.get(context.id) is context
    clock.now += 1
    with refused(404, "NotFound.context_id", "context_id") as gone:
        begin(table, context)
    assert "it may have expired" in gone.value.message
    assert table.get(context.id) is None


def test_every_use_starts_the_timer_anew(table: ContextTable, clock: Any) -> None:
    """An accepted call is a use; a look at a context is none."""
    context = create(table, ttl=HOUR)
    for _ in range(3):
        clock.now += HOUR - 1
        begin(table, context).abandon()
    clock.now += HOUR - 1
    assert table.get(context.id) is context
    clock.now += 1
    assert table.get(context.id) is None


def test_a_refused_call_is_no_use(table: ContextTable, clock: Any) -> None:
    """A refused call leaves the timer alone."""
    context = create(table, ttl=HOUR)
    clock.now += HOUR - 1
    for fields in ({"model": "other"}, {"n": MAX_REPLIES + 1}, {"text": "abcd" * 100}):
        with pytest.raises(APIStatusError):
            begin(table, context, **fields)
    clock.now += 1
    assert table.get(context.id) is None


def test_no_context_expires_under_a_call(table: ContextTable, clock: Any) -> None:
    """A call longer than the ttl keeps the context, and the timer starts when the answer ends."""
    context = create(table, ttl=HOUR)
    call = begin(table, context)
    clock.now += 3 * HOUR
    assert table.get(context.id) is context
    answer(call, "abcd")
    clock.now += HOUR - 1
    assert table.get(context.id) is context
    clock.now += 1
    assert table.get(context.id) is None


def test_a_clock_set_back_takes_no_time_away(table: ContextTable, clock: Any) -> None:
    """A use under a wall clock set back does not bring the expiry nearer."""
    context = create(table, ttl=HOUR)
    clock.now -= HOUR
    begin(table, context).abandon()
    clock.now += HOUR + 1
    assert table.get(context.id) is context


def test_expired_contexts_take_no_memory(table: ContextTable, clock: Any) -> None:
    """Later calls drop everything of expired contexts, used and unused, expired by ttl and by hand."""

    def fill() -> None:
        for _ in range(500):
            context = create(table, ttl=HOUR)
            begin(table, context).abandon()
            table.expire(create(table, ttl=HOUR).id)
        clock.now += HOUR
        create(table, ttl=2 * HOUR)
        clock.now += 1
        create(table, ttl=2 * HOUR)

    fill()  # what is kept once, as the clock's number
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fill()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 70_000, "the ids alone of 1,000 contexts take more"


def test_a_context_can_be_expired_by_hand(table: ContextTable) -> None:
    """A context expires at once, and a call under way still gets an answer."""
    context = create(table)
    call = begin(table, context)
    assert table.expire(context.id)
    assert not table.expire(context.id)
    assert answer(call, "abcd") == (4, 1, 5, 3)
    with refused(404, "NotFound.context_id", "context_id"):
        begin(table, context)


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_session_keeps_the_conversation(table: ContextTable) -> None:
    """A completed turn is stored, question and answer, and the next call finds everything cached."""
    context = create(table)
    assert answer(begin(table, context, "abcd"), "efgh" * 2) == (4, 2, 6, 3)
    call = begin(table, context, "ijkl")
    assert call.held == (system("abcd" * 3), user("abcd"), assistant("efgh" * 2))
    assert call.question == (user("ijkl"),)
    assert answer(call, "mnop") == (7, 1, 8, 6)


def test_of_several_replies_the_first_is_stored(table: ContextTable) -> None:
    """With n > 1 every reply is counted and the first is stored."""
    context = create(table)
    assert answer(begin(table, context, n=3), "aaaa", "bbbb" * 2, "cccc") == (4, 4, 8, 3)
    assert context.window.messages()[-1] == assistant("aaaa")


def test_an_abandoned_call_leaves_nothing(table: ContextTable) -> None:
    """After an abandoned call the context is free and as before; to abandon a completed call has no effect."""
    context = create(table)
    call = begin(table, context)
    call.replies[0].feed("half an ans")
    call.abandon()
    assert context.window.messages() == (system("abcd" * 3),)
    call = begin(table, context)
    answer(call, "abcd")
    call.abandon()
    assert (context.running, len(context.window.messages())) == (0, 3)


def test_calls_on_a_session_must_not_overlap(table: ContextTable) -> None:
    """A second call during the first is refused with 403 `OperationDenied.InvalidState`, in the service's words."""
    context = create(table)
    call = begin(table, context)
    with refused(403, "OperationDenied.InvalidState", "context_id") as busy:
        begin(table, context)
    assert busy.value.message == "The specified context is in invalid state: InProgress."
    call.abandon()
    begin(table, context)


def test_a_prefix_takes_any_number_of_calls_and_never_changes(table: ContextTable) -> None:
    """Concurrent calls all find the prefix cached, and nothing is stored."""
    context = create(table, mode="common_prefix")
    calls = [begin(table, context) for _ in range(5)]
    assert [answer(call, "abcd") for call in calls] == [(4, 1, 5, 3)] * 5
    assert context.window.messages() == (system("abcd" * 3),)
    assert context.window.strategy is None


def test_a_chat_names_the_contexts_own_model(table: ContextTable) -> None:
    """A chat with another model than the context's is refused with 400 `InvalidParameter`."""
    with refused(400, "InvalidParameter", "model"):
        begin(table, create(table), model="other")


def test_the_number_of_replies_is_limited(table: ContextTable) -> None:
    """An `n` beyond the limit is refused."""
    context = create(table)
    assert len(begin(table, context, n=MAX_REPLIES).replies) == MAX_REPLIES
    with refused(400, "InvalidParameter", "n"):
        begin(table, create(table), n=MAX_REPLIES + 1)


@pytest.mark.parametrize(("fields", "shown"), [({"max_tokens": 2}, "abcdefgh"), ({"max_tokens": 99}, "abcd" * 96)])
def test_a_reply_has_max_tokens_or_what_the_window_leaves(
    table: ContextTable, fields: dict[str, int], shown: str
) -> None:
    """The smaller of `max_tokens` and the room in the window limits a reply."""
    call = begin(table, create(table), **fields)
    call.replies[0].feed(shown + "more")
    assert (call.replies[0].text, call.replies[0].finish_reason) == (shown, "length")


@pytest.mark.parametrize("stop", ["END", ("END", "FIN")])
def test_one_stop_string_or_several(table: ContextTable, stop: Any) -> None:
    """`stop` is a string or a list of strings."""
    call = begin(table, create(table), stop=stop)
    assert call.replies[0].feed("abEND") == "ab"


def test_a_turn_that_rolled_has_nothing_cached(table: ContextTable) -> None:
    """A turn that rolled has no cached tokens; the next turn has the remaining tokens cached."""
    context = create(table)
    answer(begin(table, context, "abcd" * 40), "abcd" * 50)
    assert answer(begin(table, context, "abcd" * 20), "abcd") == (73, 1, 74, 0)
    assert answer(begin(table, context, "abcd"), "abcd") == (75, 1, 76, 74)


# --- owners -----------------------------------------------------------------------------------------------------------


def test_a_context_exists_for_its_owner_only(table: ContextTable) -> None:
    """For every other client the context is one that was never created, busy or not, whatever else is wrong."""
    context = table.create(ContextRequest(model="m", messages=[user("x")]), client=Client(owner="ann"))

    def chat(owner: str, model: str = "m") -> AcceptedChat:
        request = ChatRequest(context_id=context.id, model=model, messages=[user("x")])
        return table.begin(request, client=Client(owner=owner))

    for busy in (False, True):
        for owner in ("bob", ""):
            for model in ("m", "other"):
                with pytest.raises(APIStatusError) as foreign:
                    chat(owner, model)
                unknown = context_not_found(context.id)
                told = foreign.value
                assert (told.status, told.code, told.message) == (unknown.status, unknown.code, unknown.message)
        if not busy:
            chat("ann")
