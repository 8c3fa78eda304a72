"""`ctxcache serve`: the gateway on this machine, until it is told to stop."""

import argparse
import asyncio
import math
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .service import read_key
from .terminal import Terminal

if TYPE_CHECKING:
    from ..gateway import Gateway

__all__ = ["add_options", "run"]

SUMMARY: Final = "run a local gateway with both endpoints"
DESCRIPTION: Final = """\
Run a gateway on this machine: both endpoints of the Context API over real
HTTP, its contexts in memory. The answers are scripted; no language model
writes them.

Two lines go to stdout, to be pasted into the shell where the client runs.
Ctrl-C or SIGTERM stops it at once, with exit code 0."""
EXAMPLES: Final = """\
examples:
  ctxcache serve
  ctxcache serve --port 0 --key local-test --pieces-per-second 0"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    group = parser.add_argument_group("where")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=_port, default=8000, metavar="N", help="0 is a free one (default: 8000)")
    keys = group.add_mutually_exclusive_group()
    keys.add_argument(
        "--key",
        metavar="KEY",
        help="the API key clients must send; command lines can be read by every user of a machine (default: a random "
        "one; CTXCACHE_API_KEY is not read, since it is likely your key for a real service)",
    )
    keys.add_argument("--key-file", metavar="FILE", help="a file that holds the key; then it is not printed")
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--pieces-per-second",
        type=_number,
        default=40.0,
        metavar="X",
        help="speed of each reply; a piece is a word of up to 8 characters, 0 is as fast as possible (default: 40)",
    )
    group.add_argument(
        "--first-token-delay", type=_number, default=0.2, metavar="SECONDS", help="before each reply (default: 0.2)"
    )
    group.add_argument(
        "--length", type=_count, metavar="N", help="pieces of each reply (default: as long as the script's text is)"
    )
    group.add_argument(
        "--model",
        action="append",
        metavar="ID",
        help="a model to serve, repeatable (default: the three documented ones)",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log each request on stderr; no content, no key")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0 to 65535")
    return port


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 up")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 up")
    return number


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Serve."""
    asyncio.run(_serve(args, terminal))
    return 0


async def _serve(args: argparse.Namespace, terminal: Terminal) -> None:
    from ..gateway import MODELS, Gateway, ScriptedEngine  # aiohttp: not for the sake of a --help

    engine = ScriptedEngine(
        pieces_per_second=args.pieces_per_second, first_token_delay=args.first_token_delay, length=args.length
    )
    key = args.key if args.key_file is None else read_key(args.key_file)
    gateway = Gateway(host=args.host, port=args.port, api_key=key, engine=engine, models=args.model or MODELS)
    with _stop_signals() as stop:
        async with gateway:
            _tell(gateway, args, terminal)
            await stop.wait()
    terminal.note("stopped")


def _tell(gateway: "Gateway", args: argparse.Namespace, terminal: Terminal) -> None:
    key = shlex.quote(gateway.api_key)
    if args.key_file is not None:
        key = f'"$(cat {shlex.quote(str(Path(args.key_file).absolute()))})"'
    terminal.out.write(f"export CTXCACHE_BASE_URL={gateway.base_url}\nexport CTXCACHE_API_KEY={key}\n")
    terminal.note(f"listening on {args.host} port {gateway.port}; scripted answers, no language model; Ctrl-C stops")


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Give an event that SIGINT and SIGTERM set; the second signal has its usual effect."""
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
