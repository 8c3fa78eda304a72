"""The `ctxcache` command, also run by `python -m ctxcache`.

One file a command, with options, help and `run`; the parts of `map` are in `batch/`. Shared by the commands: `terminal`
(styled or plain output), `inputs` (files, stdin, values), `service` (key, base URL, model), `sampling` (options of a
chat), `usage` and `failures` (wording, exit codes). aiohttp and rich are imported on use, so `--help` is quick.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from traceback import walk_tb
from typing import Any, Final, NoReturn

from .. import __version__
from ..errors import CtxCacheError
from . import chat, create, demo, docs, keys, map, proxy, serve  # noqa: A004  # named like their commands
from .failures import BROKEN_PIPE, FAILED, INTERRUPTED, USAGE, describe, exit_code
from .terminal import Terminal

__all__ = ["main"]

_COMMANDS: Final = {
    "demo": demo,
    "serve": serve,
    "keys": keys,
    "proxy": proxy,
    "create": create,
    "chat": chat,
    "map": map,
    "docs": docs,
}
_DESCRIPTION: Final = """\
Context caching from the command line: keep a long prompt on the model's side
and chat on it many times."""
_EPILOG: Final = f"""\
environment:
  CTXCACHE_API_KEY   API key of the service
  CTXCACHE_BASE_URL  base URL of the service, version included
  CTXCACHE_MODEL     model, unless --model is given
  NO_COLOR           plain text on terminals; pipes and files get it anyway

exit codes:
  0 success, {FAILED} a call failed, {USAGE} bad input, {INTERRUPTED} stopped by Ctrl-C,
  {BROKEN_PIPE} the reader of the output left

first steps:
  ctxcache demo             a tour on a local gateway: no key, no network
  ctxcache COMMAND --help   options and examples of a command"""


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"ctxcache: {' '.join(message.split())} (see {self.prog} --help)\n")


class _CommandParser(_Parser):
    """Accepts options between positional arguments: `chat ID --model M QUESTION`."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True  # parse_known_intermixed_args calls this method again
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def _parser() -> argparse.ArgumentParser:
    layout: Any = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="ctxcache", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=layout, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"ctxcache {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name, command in _COMMANDS.items():
        one = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            formatter_class=layout,
            allow_abbrev=False,
        )
        one.set_defaults(run=command.run, verbose=False)
        command.add_options(one)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; raises nothing."""
    terminal = Terminal()
    try:
        code = _run(argv, terminal)
        terminal.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        terminal.abandon()
        return BROKEN_PIPE
    except OSError as error:  # a full disk behind `>`
        terminal.out.abandon()
        with suppress(OSError):
            terminal.error(error.strerror or str(error))
        return FAILED
    return code


def _run(argv: Sequence[str] | None, terminal: Terminal) -> int:
    try:
        args = _parser().parse_args(argv)
        with _logging(terminal, verbose=args.verbose):
            return int(args.run(args, terminal))
    except SystemExit as end:  # from argparse, after --help or bad usage
        return int(end.code or 0)
    except KeyboardInterrupt:
        terminal.out.end_line()
        raise
    except CtxCacheError as error:
        terminal.error(describe(error))
        return exit_code(error)
    except OSError:
        raise
    except Exception as error:
        terminal.error(f"internal error, please report it: {type(error).__name__}: {error} ({_place(error)})")
        return FAILED


def _place(error: Exception) -> str:
    """Return the file and line of the exception, for a bug report."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{frame.f_code.co_filename}, line {line}"


class _Log(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        with suppress(OSError):  # a broken stderr must not fail the code that logs
            self._terminal.note(f"ctxcache: {record.getMessage()}{f': {error!r}' if error else ''}")


@contextmanager
def _logging(terminal: Terminal, *, verbose: bool) -> Iterator[None]:
    """Show the package's warnings, such as retries, on stderr, and with `verbose` each call."""
    log, handler = logging.getLogger("ctxcache"), _Log(terminal)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
