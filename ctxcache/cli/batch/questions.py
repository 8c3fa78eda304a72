"""The questions of `ctxcache map`: JSON lines, read one by one, so that a file may have any length."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from ...config import UNSET
from ...errors import InvalidInputError
from ...models import Message, read_messages, user

__all__ = ["NumberedQuestion", "read_questions"]

_ALLOWED: Final = 'a JSON string, or an object with "question" (a string) or "messages" (a list)'
_HASH_DIGITS: Final = 16


@attrs.frozen
class NumberedQuestion:
    """One question.

    Attributes:
        line: line number in the file, from 1.
        messages: the messages to send.
        hash: of the messages, independent of file and line.
        id: given by the user, or UNSET.
    """

    line: int
    messages: tuple[Message, ...] = attrs.field(repr=False)
    hash: str
    id: Any = UNSET


def read_questions(name: str) -> Iterator[NumberedQuestion]:
    """Read the questions of a file, skipping blank lines.

    Raises:
        InvalidInputError: for a line that is not a question; names file and line.
    """
    try:
        with Path(name).open("rb") as file:
            for line, data in enumerate(file, start=1):
                question = _numbered(f"{name}, line {line}", line, data)
                if question is not None:
                    yield question
    except OSError as error:
        raise InvalidInputError(f"{name}: {error.strerror or error}", field=name) from None


def _numbered(where: str, line: int, data: bytes) -> NumberedQuestion | None:
    try:
        text = data.decode("utf-8-sig" if line == 1 else "utf-8")
        if not text.strip():
            return None
        given = json.loads(text)
        problem = ""
    except UnicodeDecodeError:
        problem = "not UTF-8 text"
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} (column {error.colno})"
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets thousands deep
        problem = f"not readable as JSON: {error}"
    if problem:
        raise InvalidInputError(f"{where}: {problem}", field=where)
    messages = _messages(where, given)
    id_ = given.get("id", UNSET) if isinstance(given, dict) else UNSET
    if id_ is not UNSET and (not isinstance(id_, str | int | float) or isinstance(id_, bool)):
        raise InvalidInputError.of(f"{where}: id", id_, "a string or a number")
    return NumberedQuestion(line, messages, _hash(where, messages), id_)


def _messages(where: str, given: Any) -> tuple[Message, ...]:
    fields = {"question": given} if isinstance(given, str) else given
    if not isinstance(fields, dict) or ("question" in fields) == ("messages" in fields):
        raise InvalidInputError(f"{where}: a question must be {_ALLOWED}", field=where)
    try:
        if "messages" in fields:
            return read_messages(fields["messages"])
        message = user(fields["question"])
    except InvalidInputError as error:
        problem = error.message
    else:
        if message.content.strip():
            return (message,)
        problem = "the question is empty"
    raise InvalidInputError(f"{where}: {problem}", field=where)


def _hash(where: str, messages: tuple[Message, ...]) -> str:
    plain = [{**message.extra, "role": message.role, "content": message.content} for message in messages]
    try:
        data = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise InvalidInputError(f"{where}: the question cannot be encoded as UTF-8", field=where) from None
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
