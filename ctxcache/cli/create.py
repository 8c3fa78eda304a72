"""`ctxcache create`: create a context."""

import argparse
import asyncio
import json
from typing import Any, Final

from ..client.session import AsyncSession
from ..config import UNSET
from ..errors import InvalidInputError, ProtocolError
from ..models import Context, Message
from .inputs import AddMessage, read_messages, seconds, truncation
from .service import add_service_options, model_of, open_session
from .terminal import Terminal

__all__ = ["add_options", "run"]

SUMMARY: Final = "create a context and print its id"
DESCRIPTION: Final = """\
Create a context: a conversation or a prefix whose tokens the service keeps in
its cache. The id goes to stdout, which gets nothing else, for `ctxcache chat`.
A context ends once it has been idle for its ttl. No call ends it earlier, and
its storage is billed until then.

Messages are sent in the order of their options, which can be repeated and
mixed. FILE may be - for stdin."""
EXAMPLES: Final = """\
examples:
  ctxcache create --model Doubao-1.5-pro-32k --system "Be brief" --ttl 1h
  id=$(ctxcache create --mode common_prefix --system-file manual.md)
  ctxcache create --messages history.jsonl --truncation rolling_tokens --json"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    _add_message_options(parser)
    _add_context_options(parser)
    add_service_options(parser)
    parser.add_argument("--json", action="store_true", help="print the whole answer as one JSON object, not the id")


def _add_message_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("messages")
    for role in ("system", "user", "assistant"):
        group.add_argument(
            f"--{role}", dest="sources", action=AddMessage, metavar="TEXT", help=f"message with role {role}"
        )
        group.add_argument(
            f"--{role}-file", dest="sources", action=AddMessage, metavar="FILE", help="the same, with text from a file"
        )
    group.add_argument(
        "--messages",
        dest="sources",
        action=AddMessage,
        metavar="FILE",
        help='messages in JSON: an array of {"role": "user", "content": "Hi"}, or one such object a line',
    )


def _add_context_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("context")
    group.add_argument(
        "--mode",
        choices=("session", "common_prefix"),
        default="session",
        help="session: a conversation, one call at a time; common_prefix: an immutable prefix, any number of calls at "
        "once (default: session)",
    )
    group.add_argument(
        "--ttl",
        type=seconds,
        default=UNSET,
        metavar="TIME",
        help="idle time after which the context ends, from 1h to 7d: 3600, 1h, 1h30m (default: the service's, 1d)",
    )
    group.add_argument(
        "--truncation",
        type=truncation,
        default=UNSET,
        metavar="TYPE[=VALUE]",
        help="session mode only, for a history longer than the window: last_history_tokens=N keeps the newest N "
        "tokens, rolling_tokens drops the oldest, rolling_tokens=false ends the answer (default: the service's)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Create the context."""
    model, session = model_of(args), open_session(args)
    if not args.sources:
        raise InvalidInputError("no messages: give --system TEXT, --system-file FILE or --messages FILE")
    # Input is read before the event loop runs, so that Ctrl-C ends a read from the keyboard.
    context = asyncio.run(_create(session, model, read_messages(args.sources), args))
    if args.json:
        terminal.out.line(json.dumps(_all_fields(context)))
    elif context.id.isprintable():
        terminal.out.line(context.id)
    else:  # a shell variable must not get a forged line
        raise ProtocolError(f"the context was created, but its id holds control characters: {json.dumps(context.id)}")
    return 0


async def _create(session: AsyncSession, model: str, messages: list[Message], args: argparse.Namespace) -> Context:
    async with session:
        return await session.context.create(
            model=model, messages=messages, mode=args.mode, ttl=args.ttl, truncation_strategy=args.truncation
        )


def _all_fields(context: Context) -> dict[str, Any]:
    """Return the answer of the service, completed with the request's fields."""
    known = {"id": context.id, "model": context.model, "mode": context.mode, "ttl": context.ttl}
    ids = {"request_id": context.request_id, "client_request_id": context.client_request_id}
    return {**known, **context.raw, **known, **ids}
