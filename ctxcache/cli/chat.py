"""`ctxcache chat`: one question and its answer; without a question, a conversation (see `conversation`)."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, Final

from ..client.session import AsyncSession
from ..errors import InvalidInputError
from ..models import user
from . import conversation
from .answer import stream_answer
from .inputs import STDIN, read_stdin
from .service import add_service_options, model_of, open_session
from .terminal import Terminal

__all__ = ["add_options", "run"]

SUMMARY: Final = "ask on a context: one question, or a conversation"
DESCRIPTION: Final = """\
Ask on a context. The answer is streamed to stdout, alone; its usage goes to
stderr.

The question can also be piped in. With neither, on a terminal, a conversation
begins: Ctrl-C stops an answer, Ctrl-D (or Ctrl-C at the prompt) ends. On a
session context the service remembers what was said; on a common_prefix
context every question stands alone."""
EXAMPLES: Final = """\
examples:
  ctxcache chat ctx-20241211104333-12345
  ctxcache chat "$id" "A joke, please" --temperature 1.2 --max-tokens 200
  git diff | ctxcache chat "$id" --model Doubao-1.5-pro-32k >review.md
  ctxcache chat "$id" "How long is the warranty?" --json | jq .usage"""

# Option, type, metavar, help; left out, it is not sent, and the service's default holds.
_SAMPLING: Final[tuple[tuple[str, Callable[[str], Any], str, str], ...]] = (
    ("temperature", float, "X", "randomness, 0 to 2"),
    ("top-p", float, "X", "share of the probability mass to sample from, 0 to 1"),
    ("max-tokens", int, "N", "the most tokens of one reply"),
    ("n", int, "N", "how many replies; the first is streamed, the others follow"),
    ("presence-penalty", float, "X", "-2 to 2; above 0 brings in new topics"),
    ("frequency-penalty", float, "X", "-2 to 2; above 0 makes repetition rarer"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("context_id", metavar="CONTEXT_ID", help="as `ctxcache create` printed it")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="what to ask; - or nothing: read it from stdin")
    group = parser.add_argument_group("sampling (default of each: the service's)")
    for name, kind, metavar, text in _SAMPLING:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="stop before this text; can be given up to 4 times"
    )
    add_service_options(parser)
    parser.add_argument(
        "--repeatable",
        action="store_true",
        help="sending the question twice is harmless (a common_prefix context): retry a lost answer, too",
    )
    parser.add_argument(
        "--json", action="store_true", help="wait for the whole answer and print it as one JSON object, not streamed"
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Answer one question, or hold a conversation."""
    options = _options(args)
    if args.question is None and sys.stdin is not None and sys.stdin.isatty():
        if args.json:
            raise InvalidInputError("no question: --json answers one, it holds no conversation")
        return conversation.hold(open_session(args, conversation.RETRY), options, terminal)
    session = open_session(args)
    question = read_stdin() if args.question in (None, STDIN) else args.question
    if not question.strip():
        raise InvalidInputError("no question: the one given is empty")
    ask = _ask_whole if args.json else _ask
    asyncio.run(ask(session, {**options, "messages": [user(question)]}, terminal))
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What goes with every question."""
    names = [name.replace("-", "_") for name, *_ in _SAMPLING] + ["stop"]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    return {"context_id": args.context_id, "model": model_of(args), "repeatable": args.repeatable, **given}


async def _ask_whole(session: AsyncSession, options: dict[str, Any], terminal: Terminal) -> None:
    async with session:
        answer = await session.chat.create(**options)
    ids = {"request_id": answer.request_id, "client_request_id": answer.client_request_id}
    terminal.out.line(json.dumps({**answer.raw, **ids}))


async def _ask(session: AsyncSession, options: dict[str, Any], terminal: Terminal) -> None:
    async with session:
        await stream_answer(session, options, terminal)
