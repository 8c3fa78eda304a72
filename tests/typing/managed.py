"""Managed contexts as type checkers see them; never run. mypy and pyright check both, in strict mode."""

from pathlib import Path
from typing import assert_type

from ctxcache import (
    AsyncSession,
    ChatCompletion,
    Context,
    Conversation,
    CtxCacheError,
    ManagedStream,
    MemoryStore,
    Message,
    Prefix,
    RedisStore,
    SQLiteStore,
    Store,
    StoredContext,
    ToolCall,
    TranscriptTurn,
    TurnInDoubtError,
    system,
    tool,
)


class OwnStore:
    """A store of one's own: no base class, no `async with`."""

    async def get(self, key: str) -> StoredContext | None:
        """See `Store`."""

    async def put(self, key: str, context_id: str, ttl: float, remaining: float) -> None:
        """See `Store`."""

    async def touch(self, key: str, context_id: str, remaining: float) -> None:
        """See `Store`."""

    async def forget(self, key: str, context_id: str) -> None:
        """See `Store`."""

    async def lease(self, key: str, holder: str, seconds: float) -> bool:
        """See `Store`."""
        return bool(holder)

    async def release(self, key: str, holder: str) -> None:
        """See `Store`."""

    async def pause(self, key: str, seconds: float) -> None:
        """See `Store`."""

    async def paused(self, key: str) -> float:
        """See `Store`."""
        return float(len(key))

    async def aclose(self) -> None:
        """See `Store`."""


async def stores(session: AsyncSession) -> None:
    """Each store in a block, and in a prefix."""
    async with MemoryStore() as memory, SQLiteStore(Path("contexts.db")) as sqlite, RedisStore("redis://") as redis:
        assert_type(memory, MemoryStore)
        assert_type(sqlite, SQLiteStore)
        assert_type(redis, RedisStore)
        shared: list[Store] = [memory, sqlite, redis, OwnStore()]
        for store in shared:
            Prefix(session, model="m", messages=[system("a")], store=store, chat_defaults={"temperature": 0.5})


async def conversations(session: AsyncSession) -> None:
    """A conversation in a file, with tools and doubts."""
    chat = Conversation(session, model="m", messages=[system("a")], in_doubt="drop", autosave="chat.json")
    chat = Conversation.load(session, Path("chat.json"), autosave=Path("chat.json"), chat_defaults={"max_tokens": 9})
    assert_type(chat, Conversation)
    try:
        reply = await chat.ask("b", tools=[{"type": "function", "function": {"name": "f"}}])
    except TurnInDoubtError as error:
        assert_type(error.context_id, str | None)
        assert_type(error.cause, CtxCacheError | None)
        assert_type(await chat.resync(keep=True), Context)
        return
    assert_type(reply, ChatCompletion)
    stream = chat.stream([tool("c", tool_call_id=call.id) for call in reply.tool_calls])
    assert_type(stream, ManagedStream)
    assert_type(chat.transcript, tuple[TranscriptTurn, ...])
    assert_type(chat.transcript[0].tool_calls, tuple[ToolCall, ...])
    assert_type(chat.doubtful, tuple[Message, ...] | None)
