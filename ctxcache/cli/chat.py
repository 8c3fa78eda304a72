"""`ctxcache chat`: one question and its answer, or without a question a conversation (see `conversation`)."""

import argparse
import asyncio
import json
import sys
from typing import Any, Final

from ..client.session import AsyncSession
from ..errors import InvalidInputError
from ..models import user
from . import conversation
from .answer import stream_answer
from .inputs import STDIN, read_stdin
from .sampling import add_sampling_options, sampling_of
from .service import add_service_options, model_of, open_session
from .terminal import Terminal

__all__ = ["add_options", "run"]

SUMMARY: Final = "ask on a context: one question, or a conversation"
DESCRIPTION: Final = """\
Ask on a context. The answer is streamed to stdout, which gets nothing else;
its usage goes to stderr.

The question can also be piped in. On a terminal, without a question, a
conversation begins: Ctrl-C stops an answer, Ctrl-D (or Ctrl-C at the prompt)
ends the conversation. A session context remembers earlier turns; on a
common_prefix context every question stands alone."""
EXAMPLES: Final = """\
examples:
  ctxcache chat ctx-20241211104333-12345
  ctxcache chat "$id" "A joke, please" --temperature 1.2 --max-tokens 200
  git diff | ctxcache chat "$id" --model Doubao-1.5-pro-32k >review.md
  ctxcache chat "$id" "How long is the warranty?" --json | jq .usage"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("context_id", metavar="CONTEXT_ID", help="id that `ctxcache create` printed")
    parser.add_argument("question", metavar="QUESTION", nargs="?", help="question; - or none: read from stdin")
    add_sampling_options(parser)
    add_service_options(parser)
    parser.add_argument(
        "--repeatable",
        action="store_true",
        help="retry even if the question may have run, which is harmless on a common_prefix context",
    )
    parser.add_argument("--json", action="store_true", help="print the whole answer as one JSON object, not streamed")


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Answer one question, or hold a conversation."""
    options = {"model": model_of(args), "repeatable": args.repeatable, **sampling_of(args)}
    if args.question is None and sys.stdin is not None and sys.stdin.isatty():
        if args.json:
            raise InvalidInputError("no question: --json answers one question and holds no conversation")
        return conversation.hold(open_session(args, retry=conversation.RETRY), args.context_id, options, terminal)
    session = open_session(args)
    question = read_stdin() if args.question in (None, STDIN) else args.question
    if not question.strip():
        raise InvalidInputError("the question is empty")
    ask = _ask_whole if args.json else _ask
    chat = {**options, "context_id": args.context_id, "messages": [user(question)]}
    asyncio.run(ask(session, chat, terminal))
    return 0


async def _ask_whole(session: AsyncSession, chat: dict[str, Any], terminal: Terminal) -> None:
    async with session:
        answer = await session.chat.create(**chat)
    ids = {"request_id": answer.request_id, "client_request_id": answer.client_request_id}
    terminal.out.line(json.dumps({**answer.raw, **ids}))


async def _ask(session: AsyncSession, chat: dict[str, Any], terminal: Terminal) -> None:
    async with session:
        await stream_answer(session, chat, terminal)
