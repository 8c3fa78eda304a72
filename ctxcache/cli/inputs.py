"""User input: texts and messages from options, files and stdin; option values in short forms.

Bad input raises `InvalidInputError` with the file and the line.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from ..errors import InvalidInputError
from ..models import Message

__all__ = [
    "STDIN",
    "AddMessage",
    "MessageSource",
    "non_negative",
    "port",
    "read_messages",
    "read_stdin",
    "read_text",
    "seconds",
    "truncation",
    "whole_number",
]

STDIN: Final = "-"


# --- files and stdin --------------------------------------------------------------------------------------------------


def read_text(name: str) -> str:
    """Return the text of a file without its byte order mark; `-` is stdin."""
    try:
        data = _stdin_bytes() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise _problem(_shown(name), error.strerror or str(error)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _problem(_shown(name), f"line {line} is not UTF-8 text") from None


def read_stdin() -> str:
    """Return the piped text without trailing line breaks."""
    return read_text(STDIN).rstrip("\r\n")


def _stdin_bytes() -> bytes:
    if sys.stdin is None:
        raise OSError("closed")
    return sys.stdin.buffer.read()


def _shown(name: str) -> str:
    return "stdin" if name == STDIN else name


def _problem(where: str, what: str) -> InvalidInputError:
    return InvalidInputError(f"{where}: {what}", field=where)


# --- messages ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class MessageSource:
    """One message option: a text, a file with a text, or a file of messages (`role` None)."""

    role: str | None
    value: str
    is_file: bool


class AddMessage(argparse.Action):
    """Collects message options in the order given; `--system-file` names a file with a system message."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add one."""
        role, _, kind = self.option_strings[-1].removeprefix("--").partition("-")
        many = role == "messages"
        source = MessageSource(None if many else role, str(values), is_file=many or kind == "file")
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), source])


def read_messages(sources: Iterable[MessageSource]) -> list[Message]:
    """Return the messages of all sources, in order."""
    sources = list(sources)
    if sum(source.is_file and source.value == STDIN for source in sources) > 1:
        raise _problem("stdin", "can be read only once, but two options name it")
    messages: list[Message] = []
    for source in sources:
        if source.role is None:
            messages += _parse_messages(_shown(source.value), read_text(source.value))
        else:
            messages.append(Message(source.role, read_text(source.value) if source.is_file else source.value))
    return messages


def _parse_messages(where: str, text: str) -> list[Message]:
    """Read a JSON array, or JSON lines with one message a line."""
    if text.lstrip().startswith("["):
        items = [(f"{where}, message {number}", item) for number, item in enumerate(_parse(where, text), start=1)]
    else:
        lines = enumerate(text.split("\n"), start=1)
        items = [(f"{where}, line {number}", _parse(where, line, number)) for number, line in lines if line.strip()]
    if not items:
        raise _problem(where, "no messages: expected a JSON array or JSON lines")
    return [_message(place, item) for place, item in items]


def _parse(where: str, text: str, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise _problem(f"{where}, line {line}", f"not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets thousands deep
        raise _problem(where, f"not readable as JSON: {error}") from None


def _message(where: str, item: Any) -> Message:
    if not isinstance(item, dict):
        shown = json.dumps(item)[:40]
        raise _problem(where, f"a message must be an object with role and content, got {shown}")
    extra = {name: value for name, value in item.items() if name not in ("role", "content")}
    try:
        return Message(item.get("role"), item.get("content"), extra=extra)  # type: ignore[arg-type]  # checked there
    except InvalidInputError as error:
        raise _problem(where, error.message) from None


# --- values -----------------------------------------------------------------------------------------------------------

_DURATION: Final = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s?)?")
_UNITS: Final = (86400, 3600, 60, 1)


def seconds(text: str) -> int:
    """Read a duration: `3600`, `1h`, `7d`, `1h30m`."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; use 3600, 1h or 1h30m")
    return sum(int(count) * unit for count, unit in zip(found.groups(), _UNITS, strict=True) if count)


def whole_number(minimum: int) -> Callable[[str], int]:
    """Return a reader of whole numbers that are not below `minimum`."""

    def read(text: str) -> int:
        if not re.fullmatch("[+-]?[0-9]{1,18}", text) or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} up")
        return int(text)

    return read


def non_negative(text: str) -> float:
    """Read a finite number that is not below 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return number


def port(text: str) -> int:
    """Read a port number."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def truncation(text: str) -> dict[str, Any]:
    """Read a truncation strategy: `last_history_tokens=4096`, `rolling_tokens`, `rolling_tokens=false`.

    Further fields follow after commas: `rolling_tokens,max_window_tokens=32768`. The models check their names.
    """
    first, *further = (part.strip() for part in text.split(","))
    strategy: dict[str, Any] = {"type": first.partition("=")[0]}
    if first == "rolling_tokens":
        first = "rolling_tokens=true"
    return strategy | dict(_field(part) for part in (first, *further) if part != strategy["type"])


def _field(text: str) -> tuple[str, bool | int]:
    name, _, value = text.partition("=")
    if value in ("true", "false"):
        return name, value == "true"
    if not re.fullmatch("[0-9]{1,18}", value):
        raise argparse.ArgumentTypeError(f"{text!r} needs a value: NAME=NUMBER, NAME=true or NAME=false")
    return name, int(value)
