"""`ctxcache demo`: a tour on a gateway in this process, over real HTTP."""

import argparse
import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

import attrs

from ..client.session import AsyncSession
from ..client.stream import ChatStream
from ..config import Retry
from ..errors import ContextBusyError, ContextGoneError
from ..models import Context, Usage, system, user
from .screen import Screen
from .terminal import Terminal
from .usage import usage_line

if TYPE_CHECKING:
    from ..gateway import Engine, Gateway

__all__ = ["add_options", "run"]

SUMMARY: Final = "take a tour of a few seconds: no key, no network"
DESCRIPTION: Final = """\
Start a gateway in this process and show, over real HTTP and through the
AsyncSession that you would use: a session context and a prefix context,
streamed answers, a call that waits for another, an expired context, and the
saving by the cache. The answers are scripted; no language model writes them."""
EXAMPLES: Final = """\
examples:
  ctxcache demo
  ctxcache demo | less"""

_MODEL: Final = "Doubao-1.5-pro-32k"
_PIECES_PER_SECOND: Final = 42  # about the speed of a model, so that tokens are seen to arrive
_FIRST_TOKEN_DELAY: Final = 0.2
_CACHED_PRICE: Final = 0.2  # of a cached token, relative to a new one: an assumption, and shown as one
_CLAUSES: Final = (
    "The lamp is guaranteed for thirty-six months from the day it was bought, its battery for twelve.",
    "Repairs are made in our own workshop; the owner is told the price before any work begins.",
    "Postage is paid by us where a fault is ours, and by the owner in every other case.",
    "The shade is washed with cold water and never with spirits; the arm needs no oil.",
    "Whoever writes to us has an answer within two working days, in the language of the letter.",
)
_HANDBOOK: Final = "\n".join(f"Clause {n + 1}. {_CLAUSES[n % len(_CLAUSES)]}" for n in range(75))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Do nothing: the demo has no options."""


def run(args: argparse.Namespace, terminal: Terminal, engine: "Engine | None" = None) -> int:
    """Show everything; `engine` writes the answers (default: the scripted one)."""
    with _without_proxy():
        try:
            asyncio.run(_show(terminal, engine))
        except ExceptionGroup as group:  # from a section with concurrent calls
            raise group.exceptions[0] from None
    return 0


@contextmanager
def _without_proxy() -> Iterator[None]:
    """Bypass the environment's proxy, which cannot reach a server on this machine."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "127.0.0.1"  # the lower-case spelling takes precedence
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if before is not None:
            os.environ["no_proxy"] = before


async def _show(terminal: Terminal, engine: "Engine | None") -> None:
    from ..gateway import Gateway, ScriptedEngine  # imports aiohttp, which would slow --help

    if engine is None:
        engine = ScriptedEngine(pieces_per_second=_PIECES_PER_SECOND, first_token_delay=_FIRST_TOKEN_DELAY)
    async with (
        Gateway(engine=engine) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url) as session,
    ):
        terminal.out.line("ctxcache demo", "bold")
        terminal.out.line(f"A gateway runs in this process, at {gateway.base_url}; requests")
        terminal.out.line("go to it over real HTTP, through the AsyncSession that you would use.")
        terminal.out.line("Its answers are scripted: no language model wrote them.", "yellow")
        demo = _Demo(Screen(terminal), gateway, session)
        conversation = await demo.session_context()
        prefix = await demo.prefix_context()
        await demo.overlap(conversation)
        await demo.expiry(prefix)
        demo.savings()


@attrs.define
class _Demo:
    """The demo's sections, and the usage of their calls."""

    screen: Screen
    gateway: "Gateway"
    session: AsyncSession
    creates: list[Usage] = attrs.field(factory=list)
    answers: list[Usage] = attrs.field(factory=list)

    # --- sections

    async def session_context(self) -> Context:
        """Hold a conversation on a session context."""
        self.screen.heading("A session context: the service keeps the conversation, you send the new turn")
        context = await self.create("session")
        for question in ("How long is the lamp guaranteed?", "And who pays the postage?"):
            await self.ask(context, question)
        return context

    async def prefix_context(self) -> Context:
        """Ask several questions at once on a prefix context."""
        self.screen.heading("A prefix context: one long text, many questions at once")
        context = await self.create("common_prefix")
        began = time.monotonic()

        async def answer(number: int) -> None:
            question = user(f"What does clause {number} say?")
            reply = await self.session.chat.create(context_id=context.id, model=_MODEL, messages=[question])
            usage = reply.usage or Usage()
            self.answers.append(usage)
            self.screen.paragraph(f"{time.monotonic() - began:.2f} s", f"clause {number}: {usage_line(usage)}")

        async with asyncio.TaskGroup() as answers:
            for number in (2, 3, 5, 7):
                answers.create_task(answer(number))
        return context

    async def overlap(self, context: Context) -> None:
        """Make two calls at once, of which one waits, and a third from an unrelated client."""
        self.screen.heading("Two calls at once on the session context: B waits until A is answered")
        began = time.monotonic()

        def show(text: str, style: str = "") -> None:
            self.screen.paragraph(f"{time.monotonic() - began:.2f} s", text, style)

        underway = asyncio.Event()

        async def call(name: str, style: str) -> None:
            show(f"{name} is called", style)
            async with self.stream(context, f"Question {name}") as stream:
                await anext(stream)
                show(f"{name}: first token", style)
                underway.set()
                async for _ in stream:
                    pass
            self.answers.append(stream.usage or Usage())
            show(f"{name}: last token", style)

        async with asyncio.TaskGroup() as calls:
            calls.create_task(call("A", "green"))
            await underway.wait()
            calls.create_task(call("B", "magenta"))
            try:
                await self.from_another_program(context)
            except ContextBusyError as error:
                show(f"another program: refused, {error.status} {error.code}", "red")
        self.screen.paragraph("", "The service refuses overlapping calls; one AsyncSession queues them.")

    async def from_another_program(self, context: Context) -> None:
        """Call from a session of its own, without retries, as another program would."""
        retry = Retry(attempts=1)
        async with AsyncSession(self.gateway.api_key, self.gateway.base_url, retry=retry) as other:
            await other.chat.create(context_id=context.id, model=_MODEL, messages=[user("Me too")])

    async def expiry(self, context: Context) -> None:
        """Ask on an expired context, then create a new one."""
        self.screen.heading("An expired context is noticed, and created again")
        self.gateway.expire(context.id)
        self.screen.paragraph("gateway", f"{context.id} has expired, as after {context.ttl} s without a call")
        try:
            await self.ask(context, "Is the shade washable?")
        except ContextGoneError as error:
            message = error.message.partition(" Request id")[0]
            self.screen.paragraph("raised", f"{type(error).__name__}: {message}", "red")
            await self.ask(await self.create("common_prefix"), "Is the shade washable?")

    def savings(self) -> None:
        """Add up the usage of all calls, and show the saving."""
        self.screen.heading("What the cache saved")
        prompt = sum(usage.prompt_tokens for usage in self.answers)
        cached = sum(usage.cached_tokens for usage in self.answers)
        created = sum(usage.prompt_tokens for usage in self.creates)
        new = created + prompt - cached
        saved = 1 - (new + _CACHED_PRICE * cached) / prompt
        show = self.screen.paragraph
        whole = f"{prompt:,} prompt tokens of {len(self.answers)} answers"
        show("cached", f"{cached:,} of the {whole}: {cached / prompt * 100:.1f} %", "bold green")
        show("new", f"{new:,}: {created:,} to create {len(self.creates)} contexts, {prompt - cached:,} in questions")
        show("without", f"all {prompt:,} would have been new, sent and processed each time")
        assumed = f"if a cached token costs {_CACHED_PRICE * 100:.0f} % of a new one (assumed: see your price list)"
        show("price", f"{saved * 100:.0f} % less for input, {assumed}; storage, billed by the hour, not counted")

    # --- steps

    async def create(self, mode: Literal["session", "common_prefix"]) -> Context:
        """Create a context that begins with the handbook."""
        context = await self.session.context.create(model=_MODEL, messages=[system(_HANDBOOK)], mode=mode, ttl=3600)
        usage = context.usage or Usage()
        self.creates.append(usage)
        self.screen.paragraph("created", f"{context.id} ({mode}, {usage.prompt_tokens:,} tokens)")
        return context

    async def ask(self, context: Context, question: str) -> None:
        """Ask, and show the answer token by token."""
        self.screen.paragraph("you", question)
        async with self.stream(context, question) as stream:
            paragraph = self.screen.begin("answer", "green")
            async for chunk in stream:
                paragraph.write(chunk.text)
            paragraph.end()
        usage = stream.usage or Usage()
        self.answers.append(usage)
        self.screen.paragraph("", usage_line(usage), "dim")

    def stream(self, context: Context, question: str) -> ChatStream:
        """Return a streamed answer with usage; nothing is sent yet."""
        return self.session.chat.stream(
            context_id=context.id,
            model=_MODEL,
            messages=[user(question)],
            stream_options={"include_usage": True},
        )
