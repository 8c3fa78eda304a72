"""`ctxcache create`: make a context."""

import argparse
import asyncio
import json
from typing import Any, Final

from ..client.session import AsyncSession
from ..config import UNSET
from ..errors import InvalidInputError
from ..models import Context, Message
from .inputs import AddMessage, read_messages, seconds, truncation
from .service import add_service_options, model_of, open_session
from .terminal import Terminal

__all__ = ["add_options", "run"]

SUMMARY: Final = "make a context, print its id"
DESCRIPTION: Final = """\
Make a context: a conversation or a prefix that the service keeps, so that its
tokens are cached. Its id goes to stdout, alone, for `ctxcache chat`. It ends
when it was not used for its ttl; nothing ends it earlier, and its storage is
billed until then.

Messages are sent in the order of their options, which can be repeated and
mixed. The FILE - is stdin."""
EXAMPLES: Final = """\
examples:
  ctxcache create --model Doubao-1.5-pro-32k --system "Be brief" --ttl 1h
  id=$(ctxcache create --mode common_prefix --system-file manual.md)
  ctxcache create --messages history.jsonl --truncation rolling_tokens --json"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    _add_messages(parser.add_argument_group("messages"))
    _add_context(parser.add_argument_group("context"))
    add_service_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the whole answer as one JSON object instead of the id"
    )


def _add_messages(group: argparse._ArgumentGroup) -> None:
    for role in ("system", "user", "assistant"):
        group.add_argument(
            f"--{role}", dest="sources", action=AddMessage, metavar="TEXT", help=f"a message, role {role}"
        )
        group.add_argument(
            f"--{role}-file", dest="sources", action=AddMessage, metavar="FILE", help="the same, the text from a file"
        )
    group.add_argument(
        "--messages",
        dest="sources",
        action=AddMessage,
        metavar="FILE",
        help='messages as JSON: an array of {"role": "user", "content": "Hi"}, or one such object a line',
    )


def _add_context(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--mode",
        choices=("session", "common_prefix"),
        default="session",
        help="session: the service keeps the conversation, one call at a time. common_prefix: an immutable prefix, any "
        "number of calls at once (default: session)",
    )
    group.add_argument(
        "--ttl",
        type=seconds,
        default=UNSET,
        metavar="TIME",
        help="idle time after which it is gone: 3600 to 604800 seconds, or like 1h, 7d (default: the service's, 1d)",
    )
    group.add_argument(
        "--truncation",
        type=truncation,
        default=UNSET,
        metavar="TYPE[=VALUE]",
        help="session only, when the history outgrows the window: last_history_tokens=N keeps the newest N tokens; "
        "rolling_tokens drops the oldest, rolling_tokens=false stops there (default: the service's)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Make the context."""
    model, session = model_of(args), open_session(args)
    if not args.sources:
        raise InvalidInputError("no messages: give --system TEXT, --system-file FILE or --messages FILE, ...")
    # Read before there is an event loop: a read that waits for a keyboard must end at Ctrl-C.
    context = asyncio.run(_create(session, model, read_messages(args.sources), args))
    terminal.out.line(json.dumps(_everything(context)) if args.json else context.id)
    return 0


async def _create(session: AsyncSession, model: str, messages: list[Message], args: argparse.Namespace) -> Context:
    async with session:
        return await session.context.create(
            model=model, messages=messages, mode=args.mode, ttl=args.ttl, truncation_strategy=args.truncation
        )


def _everything(context: Context) -> dict[str, Any]:
    """What the service sent, with what it left out and we know."""
    known = {"id": context.id, "model": context.model, "mode": context.mode, "ttl": context.ttl}
    ids = {"request_id": context.request_id, "client_request_id": context.client_request_id}
    return {**known, **context.raw, **known, **ids}
