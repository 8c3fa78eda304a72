"""`ctxcache serve`: the gateway on this machine, until a signal stops it."""

import argparse
import asyncio
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .inputs import non_negative, port, whole_number
from .service import read_key
from .terminal import Terminal

if TYPE_CHECKING:
    from ..gateway import Gateway

__all__ = ["add_options", "run", "stop_signals"]

SUMMARY: Final = "run a local gateway with both endpoints"
DESCRIPTION: Final = """\
Run a gateway on this machine: both endpoints of the Context API over real
HTTP, with contexts in memory. The answers are scripted; no language model
writes them.

Two lines for the client's shell go to stdout; paste them there. Ctrl-C or
SIGTERM stops the gateway at once, with exit code 0."""
EXAMPLES: Final = """\
examples:
  ctxcache serve
  ctxcache serve --port 0 --key local-test --pieces-per-second 0"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    group = parser.add_argument_group("address and key")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=port, default=8000, metavar="N", help="port; 0: any free one (default: 8000)")
    keys = group.add_mutually_exclusive_group()
    keys.add_argument(
        "--key",
        metavar="KEY",
        help="API key for clients; every user of a machine can read command lines (default: a random key; "
        "CTXCACHE_API_KEY is ignored, since it is likely your key for a real service)",
    )
    keys.add_argument("--key-file", metavar="FILE", help="file with the key, which is then not printed")
    _add_answer_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log each request to stderr; no content, no key")


def _add_answer_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--pieces-per-second",
        type=non_negative,
        default=40.0,
        metavar="X",
        help="speed of each reply in words of up to 8 characters; 0: as fast as possible (default: 40)",
    )
    group.add_argument(
        "--first-token-delay",
        type=non_negative,
        default=0.2,
        metavar="SECONDS",
        help="wait before each reply (default: 0.2)",
    )
    group.add_argument(
        "--length", type=whole_number(0), metavar="N", help="pieces of each reply (default: the whole script)"
    )
    group.add_argument(
        "--model", action="append", metavar="ID", help="model to serve; repeatable (default: the three documented ones)"
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until a signal arrives."""
    asyncio.run(_serve(args, terminal))
    return 0


async def _serve(args: argparse.Namespace, terminal: Terminal) -> None:
    from ..gateway import MODELS, Gateway, ScriptedEngine  # imports aiohttp, which would slow --help

    engine = ScriptedEngine(
        pieces_per_second=args.pieces_per_second, first_token_delay=args.first_token_delay, length=args.length
    )
    key = args.key if args.key_file is None else read_key(args.key_file)
    gateway = Gateway(host=args.host, port=args.port, api_key=key, engine=engine, models=args.model or MODELS)
    with stop_signals() as stop:
        async with gateway:
            _print_exports(gateway, args, terminal)
            await stop.wait()
    terminal.note("stopped")


def _print_exports(gateway: "Gateway", args: argparse.Namespace, terminal: Terminal) -> None:
    key = shlex.quote(gateway.api_key)
    if args.key_file is not None:
        key = f'"$(cat {shlex.quote(str(Path(args.key_file).absolute()))})"'
    terminal.out.write(f"export CTXCACHE_BASE_URL={gateway.base_url}\nexport CTXCACHE_API_KEY={key}\n")
    terminal.note(f"listening on {args.host} port {gateway.port}; scripted answers, no language model; Ctrl-C stops")


@contextmanager
def stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGINT or SIGTERM sets; a second signal has its usual effect."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    usual = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def handle(*_: object) -> None:
        restore()
        loop.call_soon_threadsafe(stop.set)

    for number in usual:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()
