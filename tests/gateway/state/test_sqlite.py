"""The state in an SQLite file: a killed process, a second gateway, a disk that is full, other files."""

import asyncio
import contextlib
import random
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcache import AsyncSession, Context, CtxCacheError, RateLimitError, SessionError, system
from ctxcache.errors import InvalidInputError
from ctxcache.gateway import Gateway, ScriptedEngine
from ctxcache.gateway.state import SQLiteState
from ctxcache.models import Message

from .conftest import Running, Spawn

MODEL = "Doubao-1.5-pro-32k"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the file."""
    return tmp_path / "contexts.db"


async def messages_of(path: Path, *contexts: Context) -> list[tuple[Message, ...]]:
    """Start a gateway on the file; return what it has of contexts."""
    async with Gateway(state=path) as gateway:
        return [gateway.messages(context.id) or () for context in contexts]


async def converse(running: Running, context: Context, told: list[tuple[str, str]], tried: list[str]) -> None:
    """Ask until the gateway is gone; note which answers came whole."""
    for number in range(10_000):
        question = f"Question {number} of {context.id}?"
        tried.append(question)
        try:
            told.append((question, await running.ask(context, question)))
        except CtxCacheError:
            return


@pytest.mark.parametrize("attempt", range(4))
async def test_a_killed_gateway_loses_and_doubles_nothing(
    path: Path, spawn: Spawn, until: Callable[..., Awaitable[None]], attempt: int
) -> None:
    """After SIGKILL under load every turn whose answer ended is there, none half, none twice, in order."""
    running = await spawn(state=str(path))
    contexts = [await running.create() for _ in range(12)]
    told: list[list[tuple[str, str]]] = [[] for _ in contexts]
    tried: list[list[str]] = [[] for _ in contexts]
    talks = [asyncio.create_task(converse(running, *books)) for books in zip(contexts, told, tried, strict=True)]
    most = random.Random(attempt).randint(20, 200)
    await until(lambda: sum(map(len, told)) >= most)
    running.kill()
    await asyncio.gather(*talks)
    for kept, whole, asked in zip(await messages_of(path, *contexts), told, tried, strict=True):
        turns = [(question.text, answer.text) for question, answer in zip(kept[1::2], kept[2::2], strict=True)]
        assert turns[: len(whole)] == whole
        assert [question for question, _ in turns] in (asked[: len(whole)], asked[: len(whole) + 1])


async def test_only_one_gateway_uses_a_file(path: Path) -> None:
    """A second gateway is refused, until the first has ended."""
    async with Gateway(state=path):
        with pytest.raises(SessionError, match=r"contexts\.db: another gateway uses the file$"):
            await Gateway(state=path).start()
    async with Gateway(state=path):
        pass


async def test_a_full_disk_refuses_what_cannot_be_kept(path: Path, spawn: Spawn) -> None:
    """Where nothing more can be written, calls are refused with 503 and nothing is told as stored."""
    running = await spawn(state=str(path), file_bytes=300_000)
    context = await running.create()
    whole = []
    with pytest.raises(RateLimitError, match=r"is not stored: (database or disk is full|disk I/O error)") as caught:
        for number in range(100):
            whole.append((question := f"{number} " + "x" * 10_000, await running.ask(context, question)))
    assert caught.value.code == "ServerOverloaded"
    with pytest.raises(RateLimitError, match="is not stored") as caught:
        await running.create("x" * 100_000)
    assert caught.value.status == 503
    assert caught.value.retry_after == 1
    running.kill()
    (kept,) = await messages_of(path, context)
    assert [(question.text, answer.text) for question, answer in zip(kept[1::2], kept[2::2], strict=True)] == whole


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    """No other user can read the file."""
    asyncio.run(messages_of(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_writes_share_a_transaction(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes while the disk is busy is written together."""
    commits = []
    connect = sqlite3.connect

    def counted(*args: Any, **named: Any) -> sqlite3.Connection:
        connection = connect(*args, **named)
        connection.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
        return connection

    monkeypatch.setattr(sqlite3, "connect", counted)
    engine = ScriptedEngine(pieces_per_second=0, first_token_delay=0, length=1)
    async with (
        Gateway(state=path, engine=engine) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url) as session,
    ):
        before = len(commits)
        creates = (session.context.create(model=MODEL, messages=[system("Be kind.")]) for _ in range(40))
        await asyncio.gather(*creates)
        assert len(commits) - before < 40


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read as one" * 20, None])
def test_another_file_is_refused(path: Path, content: bytes | None) -> None:
    """A file that is something else is refused, and stays as it is."""
    if content is None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE others (number INTEGER)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(SessionError, match=r"cannot keep contexts in .*contexts\.db: "):
        asyncio.run(messages_of(path))
    assert path.read_bytes() == before


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names the file and the problem."""
    with pytest.raises(SessionError, match=r"none/contexts\.db: No such file or directory$"):
        await Gateway(state=tmp_path / "none" / "contexts.db").start()


@pytest.mark.parametrize("path", ["", ":memory:", "redis://127.0.0.1", b"x", 3])
def test_a_path_is_asked_for(path: Any) -> None:
    """Anything but the path of a file is refused by name."""
    with pytest.raises(InvalidInputError, match=r"^state must be the path of a file, got"):
        SQLiteState(path)
