"""The engine behind a gateway, with a package that stands for xllamacpp in the child: its tokens are words."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from ctxcache.errors import APIConnectionError, InvalidInputError, SessionError
from ctxcache.gateway import Prompt
from ctxcache.gateway.engines.llama import LlamaEngine
from ctxcache.gateway.engines.llama.supervisor import Supervision
from ctxcache.models import ChatRequest, Message, user

from ...conftest import MODEL, Answer, Api, Start

Children = Callable[[], list[int]]
MakeEngine = Callable[..., LlamaEngine]
Until = Callable[[Callable[[], object]], Awaitable[None]]
WORDS = " ".join(f"w{n}" for n in range(100))
QUICK = Supervision(probe=0.01, hung=30.0, steady=0.0)


@pytest.fixture
def engine(fake: None, model: Callable[..., Path], tmp_path: Path) -> MakeEngine:
    """Make engines whose contexts are saved in the folder `saved`."""
    (tmp_path / "saved").mkdir()

    def make(words: str = "", **settings: Any) -> LlamaEngine:
        path = model(words, window=400)
        return LlamaEngine(
            path, **{"name": MODEL, "slots": 2, "cache_dir": tmp_path / "saved", "_times": QUICK, **settings}
        )

    return make


@pytest.fixture
async def api(start: Start, engine: MakeEngine) -> Api:
    """A gateway with an engine of two slots."""
    return await serve(start, engine())


async def serve(start: Start, engine: LlamaEngine) -> Api:
    """Start a gateway with an engine."""
    return await start(engine=engine, models=engine.models)


async def create(api: Api, text: str = WORDS, **fields: Any) -> str:
    """Create a context; return its id."""
    context: dict[str, str] = await api.create(messages=[{"role": "system", "content": text}], **fields)
    return context["id"]


def tokens(answer: Answer) -> tuple[int, int]:
    """The tokens of the prompt and those cached."""
    usage = answer.json["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def journal(folder: Path, kind: str) -> list[list[int]]:
    """Return what the server noted, of one kind."""
    lines = [line.split() for line in (folder / "small.journal").read_text().splitlines()]
    return [[int(number) for number in numbers] for name, *numbers in lines if name == kind]


def cold(folder: Path) -> int:
    """Count the contexts that were computed, with nothing cached."""
    return sum(prompt > 100 and cached < 50 for prompt, cached in journal(folder, "chat"))


def saved(folder: Path) -> list[int]:
    """The sizes of the saved contexts."""
    sizes = []
    for path in folder.rglob("*.slot"):
        with suppress(FileNotFoundError):  # removed meanwhile
            sizes.append(path.stat().st_size)
    return sizes


async def test_a_prefix_is_cached_from_the_first_question(api: Api) -> None:
    """A create computes the prefix: the first question and every other has all of it cached, as the model counts."""
    prefix = await create(api, mode="common_prefix")
    for question in ("hello", "once more", "and again"):
        answer = await api.chat(prefix, question)
        assert answer.json["choices"][0]["message"]["content"] == f"{question} "
        assert tokens(answer) == (102 + len(question.split()), 102)


async def test_two_prefixes_in_turn(start: Start, engine: MakeEngine, tmp_path: Path) -> None:
    """Prefixes that share one slot are restored from their files: each question has its prefix cached."""
    api = await serve(start, engine(slots=1))
    first, second = [await create(api, f"{name} {WORDS}", mode="common_prefix") for name in ("one", "two")]
    for _ in range(3):
        assert tokens(await api.chat(first)) == (104, 103)
        assert tokens(await api.chat(second)) == (104, 103)
    assert cold(tmp_path) == 2


async def test_questions_at_once_are_all_cached(api: Api, tmp_path: Path) -> None:
    """Questions in all slots at once, and those that wait, have the prefix cached, which was computed once."""
    prefix = await create(api, mode="common_prefix")
    answers = await asyncio.gather(*(api.chat(prefix, f"{n} question") for n in range(6)))
    assert [tokens(answer)[1] for answer in answers] == [102] * 6
    assert [answer.json["choices"][0]["message"]["content"] for answer in answers] == [
        f"{n} question " for n in range(6)
    ]


async def test_a_history_is_cached_from_turn_to_turn(start: Start, engine: MakeEngine, tmp_path: Path) -> None:
    """A session's turn has all turns before it cached, also where other contexts took the slot in between."""
    api = await serve(start, engine(slots=1))
    session, prefix = await create(api), await create(api, f"other {WORDS}", mode="common_prefix")
    said = 102
    for question in ("one", "two two", "three three three"):
        answer = await api.chat(session, question)
        assert tokens(answer)[1] == said
        said, _ = tokens(answer)
        assert tokens(await api.chat(prefix))[1] >= 102
    assert said == 101 + 2 + 5 + 7
    assert cold(tmp_path) == 2


async def test_several_replies(api: Api) -> None:
    """The history goes on with the first of several replies, which stays cached."""
    session = await create(api)
    answer = await api.chat(session, "a b", n=2)
    assert [choice["message"]["content"] for choice in answer.json["choices"]] == ["a b ", "a b "]
    assert tokens(await api.chat(session, "c"))[1] == 104


async def test_without_warming(start: Start, engine: MakeEngine, tmp_path: Path) -> None:
    """`warm=False` leaves the computation to the first questions, which compute the prefix once between them."""
    api = await serve(start, engine(warm=False))
    prefix = await create(api, mode="common_prefix")
    answers = await asyncio.gather(*(api.chat(prefix) for _ in range(4)))
    assert all(tokens(answer)[1] >= 101 for answer in answers)
    assert cold(tmp_path) == 1


async def test_a_template_that_wants_other_messages(api: Api) -> None:
    """A context that the template refuses on its own stays cold: the create succeeds, and so does a fitting chat."""
    messages = [{"role": "system", "content": "alternate"}]
    context = await api.create(messages=messages)
    question = [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "hello"}]
    answer = await api.chat(context["id"], messages=question)
    assert answer.json["choices"][0]["message"]["content"] == "hello "
    assert (await api.chat((await api.create(messages=messages))["id"])).error["code"] == "InvalidParameter"


async def test_the_disk_has_a_limit(start: Start, engine: MakeEngine, tmp_path: Path, until: Until) -> None:
    """Beyond `cache_bytes` saved contexts go, the one used longest ago first; they are computed again when used."""
    api = await serve(start, engine(slots=1, cache_bytes=2000))
    prefixes = [await create(api, f"p{n} {WORDS}", mode="common_prefix") for n in range(4)]
    await until(lambda: 0 < sum(saved(tmp_path)) <= 2000)
    for prefix in prefixes:
        assert tokens(await api.chat(prefix))[1] == 103
    await until(lambda: 0 < sum(saved(tmp_path)) <= 2000)
    assert cold(tmp_path) == 8
    assert tokens(await api.chat(prefixes[-1]))[1] == 103
    assert cold(tmp_path) == 8


async def test_an_expired_context_leaves_nothing(
    start: Start, engine: MakeEngine, tmp_path: Path, until: Until
) -> None:
    """At its expiry a context's file goes from the disk; its slot is not saved any more."""
    api = await serve(start, engine(slots=1))
    session = await create(api)
    await api.chat(session, "grow")
    assert len(saved(tmp_path)) == 1
    api.gateway.expire(session)
    await until(lambda: saved(tmp_path) == [])
    await create(api, mode="common_prefix")
    assert len(saved(tmp_path)) == 1


async def test_an_expired_context_leaves_its_slot(api: Api, tmp_path: Path) -> None:
    """Two prefixes share two slots without a restore, where a session had one of the slots before its end."""
    session = await create(api)
    await api.chat(session, "grow")
    api.gateway.expire(session)
    prefixes = [await create(api, f"{name} {WORDS}", mode="common_prefix") for name in ("one", "two")]
    for prefix in prefixes * 3:
        await api.chat(prefix)
    assert journal(tmp_path, "restore") == []


async def test_contexts_beyond_the_window(api: Api) -> None:
    """The window counts by the model, here more tokens than the gateway's rule finds in short words."""
    letters = " ".join("abcdefghijklmnopqrstuvwxyz" * 15)
    body = {"model": MODEL, "messages": [{"role": "system", "content": f"{letters} {letters}"}]}
    refused = await api.post("/context/create", body)
    assert (refused.status, refused.error["code"]) == (400, "OutofContextError")
    assert "The messages have 781 tokens, which leaves no room in the context window of 400" in refused.error["message"]
    prefix = await create(api, mode="common_prefix")
    for stream in (False, True):
        refused = await api.chat(prefix, letters, stream=stream)
        assert (refused.status, refused.error["code"]) == (400, "OutofContextError")
    assert tokens(await api.chat(prefix))[1] == 102


async def test_the_servers_word_on_the_window(api: Api) -> None:
    """A context that leaves no room for the template of a question is refused by the server, at the create."""
    body = {"model": MODEL, "messages": [{"role": "system", "content": "w " * 398}]}
    refused = await api.post("/context/create", body)
    assert (refused.status, refused.error["code"]) == (400, "OutofContextError")
    assert "request (401 tokens) exceeds" in refused.error["message"]


async def test_tokens_of_messages(engine: MakeEngine, children: Children) -> None:
    """Each message counts by the model, with the template around; by the gateway's rule where the child is lost."""
    messages = [user("a b c"), user(""), user("abcd")]
    async with engine() as made:
        assert await made.count_tokens(MODEL, messages) == [4, 1, 2]
        os.kill(children()[0], signal.SIGSTOP)
        count = asyncio.create_task(made.count_tokens(MODEL, messages))
        await asyncio.sleep(0)
        os.kill(children()[0], signal.SIGKILL)
        assert await count == [1 + 2, 1, 1 + 1]


async def test_tokens_of_tool_calls(engine: MakeEngine, tmp_path: Path) -> None:
    """Names and arguments of tool calls count as text does, and a request's messages are counted by one call."""
    calls = [{"function": {"name": "f", "arguments": "a b c"}}, {"function": {"name": "g", "arguments": ""}}]
    messages = [user("a b"), Message("assistant", None, {"tool_calls": calls}), *[user("x")] * 20]
    async with engine() as made:
        before = len(journal(tmp_path, "tokenize"))
        assert await made.count_tokens(MODEL, messages) == [1 + 2, 1 + 4 + 1, *[1 + 1] * 20]
    assert len(journal(tmp_path, "tokenize")) == before + 1


@pytest.mark.parametrize("fault", ["crash", "hang"])
async def test_a_child_lost_in_mid_answer(start: Start, engine: MakeEngine, children: Children, fault: str) -> None:
    """A child that dies or hangs in mid-answer is an error event; the session is free and the next call works."""
    api = await serve(start, engine(_times=attrs.evolve(QUICK, hung=0.5)))
    session = await create(api)
    answer = await api.chat(session, f"one two {fault} three", stream=True)
    *chunks, error = answer.data
    assert any("two" in chunk for chunk in chunks)
    assert "InternalServiceError" in error
    answer = await api.chat(session, "next")
    assert answer.json["choices"][0]["message"]["content"] == "next "
    assert tokens(answer) == (103, 102)
    assert len(children()) == 1


async def test_a_child_lost_between_calls(api: Api, children: Children, tmp_path: Path) -> None:
    """A child killed between two calls costs nobody an answer: its successor restores the prefix in all slots."""
    prefix = await create(api, mode="common_prefix")
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    answers = await asyncio.gather(*(api.chat(prefix, f"{n} question") for n in range(3)))
    assert [tokens(answer) for answer in answers] == [(104, 102)] * 3
    assert cold(tmp_path) == 1


async def test_an_answer_without_a_finish_reason(api: Api) -> None:
    """`[DONE]` alone does not make an answer whole: an error, and the session keeps no half turn."""
    session = await create(api)
    answer = await api.chat(session, "one cut two")
    assert (answer.status, answer.error["code"]) == (500, "InternalServiceError")
    assert tokens(await api.chat(session, "next"))[0] == 103


async def test_every_call_of_a_killed_child_ends(api: Api) -> None:
    """When the child dies under more calls than slots, each gets an answer or an error; none waits for ever."""
    prefix = await create(api, mode="common_prefix")
    calls = [api.chat(prefix, "one crash two" if n == 3 else "one two", stream=True) for n in range(8)]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*calls)
    assert all(answer.body.endswith(b"[DONE]\n\n") or b"InternalServiceError" in answer.body for answer in answers)
    assert tokens(await api.chat(prefix))[1] == 102


async def test_a_client_that_leaves(api: Api) -> None:
    """A client that leaves in mid-answer frees its slot and its session."""
    session = await create(api)
    for _ in range(3):
        async with api.open(session, "word " * 200, stream=True, max_tokens=150) as response:
            await response.content.readline()
    async with asyncio.timeout(20):
        while (answer := await api.chat(session, "next")).status == 403:
            pass
    assert answer.status == 200


async def test_it_may_be_started_again(engine: MakeEngine, children: Children, tmp_path: Path) -> None:
    """The engine ends with its child and its files, and may start again; two starts or ends are one."""
    made = engine()
    for _ in range(2):
        async with made:
            await made.start()
            assert len(children()) == 1
            assert len(list((tmp_path / "saved").iterdir())) == 1
        await made.aclose()
        assert children() == []
        assert list((tmp_path / "saved").iterdir()) == []


async def test_a_start_that_fails(engine: MakeEngine, children: Children, tmp_path: Path) -> None:
    """A model that cannot be loaded is told in a sentence, and leaves neither child nor files."""
    with pytest.raises(APIConnectionError, match=r"^llama\.cpp cannot load small\.gguf: llama_model_load: error load"):
        await engine("broken").start()
    assert children() == []
    assert list((tmp_path / "saved").iterdir()) == []


async def test_calls_want_a_running_engine(engine: MakeEngine) -> None:
    """Before the start a call is a mistake of the program."""
    prompt = Prompt(
        request=ChatRequest(context_id="c", model=MODEL, messages=[user("x")]),
        context=(),
        context_tokens=0,
        question=(user("x"),),
    )
    with pytest.raises(SessionError, match=r"^the engine is not running: a gateway starts it, or `async with`$"):
        await anext(engine().generate(prompt))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"slots": 0}, r"slots must be a whole number in \[1, 64\], got 0"),
        ({"window": 401}, r"window must be a whole number in \[2, 400\], got 401"),
        ({"window": 1}, r"window must be a whole number in \[2, 400\], got 1"),
        ({"threads": 1.5}, r"threads must be a whole number in \[1, 1024\], got 1.5"),
        ({"cache_bytes": -1}, "cache_bytes must be a whole number from 0 up, got -1"),
        ({"cache_dir": 7}, "cache_dir must be a path, got 7"),
        ({"name": ""}, "name must be a non-empty string, got ''"),
        ({"warm": 1}, "warm must be True or False, got 1"),
    ],
)
def test_arguments_out_of_range(engine: MakeEngine, settings: dict[str, Any], told: str) -> None:
    """A wrong argument is named, with what must hold and what was got."""
    with pytest.raises(InvalidInputError, match=f"^{told}$"):
        engine(**settings)


async def test_a_folder_that_is_not_there(engine: MakeEngine, tmp_path: Path) -> None:
    """A `cache_dir` in which no folder can be made is told at the start."""
    with pytest.raises(InvalidInputError, match=r"^cache_dir must be a folder to write in, got '.*none': No such file"):
        await engine(cache_dir=tmp_path / "none").start()


def test_name_and_window_of_a_model(model: Callable[..., Path]) -> None:
    """By default the name is the file's, and the window the model's own up to 8,192 tokens."""
    assert LlamaEngine(model(name="my.model.gguf", window=400)).models == {"my.model": 400}
    assert LlamaEngine(str(model(window=100_000))).models == {"small": 8192}
    assert LlamaEngine(model(window=100_000), name="x", window=20_000).models == {"x": 20_000}
    for wrong in ("", None, 7):
        with pytest.raises(InvalidInputError, match=r"^model must be a path, got "):
            LlamaEngine(wrong)  # type: ignore[arg-type]
