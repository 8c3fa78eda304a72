"""Shared by the commands that serve: bounds on clients, lines for the client's shell, signals, the end."""

import argparse
import asyncio
import math
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from .. import checks
from .inputs import non_negative
from .terminal import Terminal

if TYPE_CHECKING:
    from ..gateway import Gateway, GatewayLimits
    from ..proxy import Proxy

__all__ = [
    "add_allow_host",
    "add_limit_options",
    "close_after",
    "fast_loop",
    "hangups",
    "limit",
    "print_exports",
    "read_limits",
    "size",
    "stop_signals",
]

_UNITS: Final = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def add_allow_host(group: argparse._ArgumentGroup) -> None:
    """Add the option for host names."""
    group.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME",
        help="name that clients may call this server by, beside those of this machine; '*': any; repeatable "
        "(default: no other on a loopback address, else any)",
    )


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the bounds on clients, and for the end."""
    group = parser.add_argument_group("limits")
    group.add_argument(
        "--grace",
        type=non_negative,
        default=30.0,
        metavar="SECONDS",
        help="time for answers under way to end after a signal; then they end with an error (default: 30)",
    )
    group.add_argument(
        "--limit",
        action="append",
        type=limit,
        metavar="NAME=N",
        help="bound on clients, by the names in `ctxcache docs self-hosting`; bytes also as KiB, MiB, GiB; repeatable",
    )


def limit(text: str) -> tuple[str, float]:
    """Read `NAME=N`: a limit, and a number, with a unit if the limit is one of bytes."""
    name, _, value = text.partition("=")
    try:
        return name, float(_bytes(value)) if name.endswith("_bytes") else float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name and a number: connections=500") from None


def size(text: str) -> int:
    """Read a number of bytes."""
    try:
        return _bytes(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes: 500MiB") from None


def _bytes(text: str) -> int:
    """Read a number of bytes, with or without a unit.

    Raises:
        ValueError: for anything else.
    """
    digits = text.rstrip("KMGiB")
    unit = _UNITS.get(text[len(digits) :])
    number = float(digits)
    if unit is None or not 0 <= number < math.inf:
        raise ValueError(text)
    return int(number * unit)


def read_limits(given: Iterable[tuple[str, float]]) -> "GatewayLimits":
    """Return the limits with these names and values."""
    from ..gateway import GatewayLimits

    names = [field.name for field in attrs.fields(GatewayLimits)]
    for name, _ in given:
        checks.one_of("--limit: name", name, names)
    return GatewayLimits(**dict(given))  # type: ignore[arg-type]  # checked there


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where that is installed (extra `fast`); None is asyncio's."""
    try:
        uvloop = import_module("uvloop")
    except ImportError:
        return None
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


def print_exports(
    client: str, server: "Gateway | Proxy", args: argparse.Namespace, terminal: Terminal, told: str
) -> None:
    """Print lines for the shell of a client, whose variables begin with a name, and a phrase for the terminal.

    No key is printed where the keys are those of a file, which only the gateway has.
    """
    terminal.out.write(f"export {client}_BASE_URL={server.base_url}\n")
    if args.key_file is not None:
        file = shlex.quote(str(Path(args.key_file).absolute()))
        terminal.out.write(f'export {client}_API_KEY="$(cat {file})"\n')
    elif getattr(args, "keys", None) is None:
        terminal.out.write(f"export {client}_API_KEY={shlex.quote(server.api_key)}\n")
    terminal.note(f"listening on {args.host} port {server.port}; {told}; Ctrl-C stops")


async def close_after(
    stop: asyncio.Event, server: "Gateway | Proxy", args: argparse.Namespace, terminal: Terminal
) -> None:
    """Wait for the event, then close a server, with the grace of the options."""
    await stop.wait()
    if args.grace:
        terminal.note(f"stopping; answers under way have {args.grace:g} s to end")
    await server.aclose(grace=args.grace)


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


@contextmanager
def hangups(call: Callable[[], object] | None) -> Iterator[None]:
    """Call a function in the event loop for each SIGHUP; None leaves the signal alone."""
    if call is None or not hasattr(signal, "SIGHUP"):
        yield
        return
    loop = asyncio.get_running_loop()
    usual = signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(call))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, usual)
