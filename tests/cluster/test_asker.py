"""Batches in, batches with answers out, in one process."""

import asyncio
import dataclasses
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from ctxcache import InvalidInputError, Retry, SessionError, Timeouts, system
from ctxcache.cluster import PrefixAsker

from .conftest import KEY, MANUAL, MODEL, CountingEngine

Make = Callable[..., PrefixAsker]


@pytest.fixture(autouse=True)
async def _quiet(quiet_loop: None) -> None:
    """No test leaves an exception that nobody retrieved."""


async def test_a_batch_gets_its_answers(asker_for: Make) -> None:
    """Each row has the answer to its own question, the tokens and the ids, beside the columns that it had."""
    asker = asker_for()
    result = await asker({"question": [f"q{n}" for n in range(200)], "id": list(range(200))})
    assert result["id"] == list(range(200))
    assert result["text"] == [f"about q{n}" for n in range(200)]
    assert set(result["error"]) == {None}
    assert set(result["finish_reason"]) == {"stop"}
    assert len(set(result["request_id"])) == 200
    assert all(cached > 0 for cached in result["cached_tokens"])
    assert all(a > b for a, b in zip(result["prompt_tokens"], result["cached_tokens"], strict=True))
    assert all(tokens > 0 for tokens in result["completion_tokens"])


async def test_a_failed_question_is_a_value(asker_for: Make) -> None:
    """A question that cannot be asked has its error in its row; the others are answered."""
    result = await asker_for()({"question": ["a", None, "b"]})
    assert result["text"] == ["about a", None, "about b"]
    assert result["error"][1].startswith("InvalidInputError: question must be a string")
    assert result["error"][0] is result["error"][2] is None
    assert result["prompt_tokens"][1] is result["finish_reason"][1] is result["request_id"][1] is None


async def test_an_error_of_the_service_is_a_value(asker_for: Make, engine: CountingEngine) -> None:
    """An answer that never comes has its error and the service's request id in the row, as a string."""

    def fail() -> None:
        raise RuntimeError("no model")

    engine.each = fail
    result = await asker_for(retry=0)({"question": ["a"]})
    assert result["text"] == [None]
    assert result["error"][0].startswith("InternalServerError: ")
    assert result["request_id"][0]


async def test_copies_share_a_session(asker_for: Make, engine: CountingEngine) -> None:
    """Without a store, all pickled copies in a process and event loop use one context."""
    copies = [pickle.loads(pickle.dumps(asker_for())) for _ in range(4)]
    await asyncio.gather(*(copy({"question": [f"q{n}"]}) for n, copy in enumerate(copies)))
    await copies[0]({"question": ["later"]})
    assert len(engine.contexts) == 1
    assert engine.asked.total() == 5


async def test_other_settings_have_another_session(asker_for: Make, engine: CountingEngine) -> None:
    """Askers with other messages do not share a context."""
    await asker_for()({"question": ["a"]})
    await asker_for(messages=[system("Another manual.")])({"question": ["a"]})
    assert len(engine.contexts) == 2


async def test_askers_share_a_context_through_a_store(asker_for: Make, engine: CountingEngine, tmp_path: Any) -> None:
    """Sessions with other parameters find the context of the same messages in the store."""
    store = f"sqlite:///{tmp_path}/contexts.db"
    await asker_for(store=store, temperature=0.1)({"question": ["a"]})
    await asker_for(store=store, temperature=0.2)({"question": ["a"]})
    assert len(engine.contexts) == 1


async def test_an_empty_batch_sends_nothing(asker_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch without rows gets its columns, even without a key: engines look at such a batch for its types."""
    monkeypatch.delenv("CTXCACHE_API_KEY")
    result = await asker_for()({"question": []})
    assert set(result) == {
        *("question", "text", "error", "finish_reason", "request_id"),
        *("prompt_tokens", "completion_tokens", "cached_tokens"),
    }
    assert not any(map(len, result.values()))


async def test_a_worker_needs_a_key(asker_for: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key every batch fails with the error that names the variable, until there is one."""
    asker = asker_for()
    monkeypatch.delenv("CTXCACHE_API_KEY")
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="CTXCACHE_API_KEY"):
            await asker({"question": ["a"]})
    monkeypatch.setenv("CTXCACHE_API_KEY", KEY)
    assert (await asker({"question": ["a"]}))["text"] == ["about a"]


@pytest.mark.parametrize("name", ["Authorization", "cookie", "X-Api-Key"])
def test_secret_headers_are_refused(name: str) -> None:
    """Headers are pickled with the asker: none may hold a secret, and no traceback shows the value."""
    secret = "s3cret-of-a-header"
    with pytest.raises(InvalidInputError, match="extra_headers must have no secrets") as caught:
        PrefixAsker(model=MODEL, messages=[system(MANUAL)], extra_headers={"X-Tenant": "a", name: secret})
    assert caught.value.__traceback__
    below = caught.value.__traceback__.tb_next
    shown = traceback.StackSummary.extract(traceback.walk_tb(below), capture_locals=True).format()
    assert secret not in str(caught.value) + "".join(shown)
    assert PrefixAsker(model=MODEL, messages=[system(MANUAL)], extra_headers={"X-Tenant": "a"})


@pytest.mark.parametrize(("name", "kind"), [("api_key", InvalidInputError), ("apikey", TypeError)])
def test_a_key_is_refused(name: str, kind: type[Exception]) -> None:
    """A key among the arguments, misspelt too, is refused and shows in no traceback of this package."""
    with pytest.raises(kind, match=name) as caught:
        PrefixAsker(**{"model": MODEL, "messages": [system(MANUAL)], name: KEY})  # type: ignore[arg-type]
    assert caught.value.__traceback__
    below = caught.value.__traceback__.tb_next
    shown = traceback.StackSummary.extract(traceback.walk_tb(below), capture_locals=True).format()
    assert shown
    assert KEY not in "".join(shown)


def test_the_refusal_of_a_key_says_where_it_goes() -> None:
    """The error names the variable that workers read."""
    with pytest.raises(InvalidInputError, match="set CTXCACHE_API_KEY in the environment of the workers"):
        PrefixAsker(model=MODEL, messages=[system(MANUAL)], api_key=KEY)  # type: ignore[call-arg]


def test_no_pickle_has_the_key(asker_for: Make) -> None:
    """The key of the environment is in no pickle and no repr."""
    asker = asker_for()
    assert KEY.encode() not in pickle.dumps(asker)
    assert repr(asker) == f"<PrefixAsker {MODEL}>"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"temperature": 9}, "temperature"),
        ({"concurrency": 0}, "concurrency"),
        ({"ttl": 60}, "ttl"),
        ({"messages": []}, "messages"),
        ({"model": ""}, "model"),
        ({"base_url": "http://user:word@host/v1"}, "base_url"),
        ({"store": "contexts.db"}, "store"),
        ({"question": 5}, "question"),
        ({"output_prefix": None}, "output_prefix"),
    ],
)
def test_settings_are_checked_where_they_are_given(asker_for: Make, settings: dict[str, object], field: str) -> None:
    """What every worker would refuse is refused in the driver, by an error that names the argument."""
    with pytest.raises(InvalidInputError) as caught:
        asker_for(**settings)
    assert caught.value.field == field
    assert "word" not in str(caught.value)


def test_a_misspelt_parameter(asker_for: Make) -> None:
    """A parameter that does not exist is a `TypeError` with the nearest name."""
    with pytest.raises(TypeError, match="no argument 'max_completion_tokens': did you mean 'max_tokens'"):
        asker_for(max_completion_tokens=5)


def test_settings_must_be_picklable(asker_for: Make) -> None:
    """An argument that no worker could get is refused."""

    @dataclasses.dataclass
    class Local:
        type: str
        function: dict[str, str]

    with pytest.raises(InvalidInputError, match="pickled"):
        asker_for(tools=[Local("function", {"name": "look"})])


async def test_parameters_reach_every_call(asker_for: Make, engine: CountingEngine) -> None:
    """The parameters of a chat go along, those with values of this package too."""
    asker = asker_for(max_tokens=1, timeouts=Timeouts(total=30), retry=Retry(attempts=2))
    result = await pickle.loads(pickle.dumps(asker))({"question": ["a b c d e"]})
    assert result["finish_reason"] == ["length"]


async def test_threads_share_a_session(asker_for: Make, engine: CountingEngine) -> None:
    """`run` blocks a thread until its batch is answered; all threads use one session and one context."""
    asker = asker_for()
    batches = [{"question": [f"q{n}", f"r{n}"]} for n in range(6)]
    results = await asyncio.gather(*(asyncio.to_thread(asker.run, batch) for batch in batches))
    assert [result["text"] for result in results] == [[f"about q{n}", f"about r{n}"] for n in range(6)]
    assert len(engine.contexts) == 1


async def test_run_refuses_to_block_a_loop(asker_for: Make) -> None:
    """Where an event loop runs, `run` raises at once."""
    with pytest.raises(SessionError, match="await the PrefixAsker"):
        asker_for().run({"question": ["a"]})


async def test_run_raises_what_a_batch_raises(asker_for: Make) -> None:
    """A batch in another form is refused in the thread that gave it."""
    with pytest.raises(InvalidInputError, match="batch must be"):
        await asyncio.to_thread(asker_for().run, 5)


async def test_columns_by_other_names(asker_for: Make) -> None:
    """The column of the questions may have any name; a prefix keeps the columns added apart from those there."""
    asker = asker_for(question="text", output_prefix="answer_")
    result = await asker({"text": ["a"]})
    assert result["text"] == ["a"]
    assert result["answer_text"] == ["about a"]
    assert result["answer_error"] == [None]


def test_no_framework_is_imported() -> None:
    """The import needs no framework, and `import ctxcache` does not need the cluster."""
    program = (
        "import sys, ctxcache; ctxcache.AsyncSession; assert 'ctxcache.cluster' not in sys.modules\n"
        "import ctxcache.cluster\n"
        "found = {'ray', 'dask', 'distributed', 'numpy', 'pandas', 'pyarrow', 'aiohttp'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
