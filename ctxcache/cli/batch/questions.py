"""The questions of a batch, read one by one, so that a file may have any length.

The file is read twice: once to check every question before anything is sent, once to ask. Pipes and stdin, which cannot
be read twice, are copied to a temporary file first.
"""

import hashlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import attrs

from ...config import UNSET, Unset
from ...errors import InvalidInputError
from ...models import Message, read_messages, user
from ...models.requests import check_options
from ..inputs import STDIN
from ..sampling import PARAMETERS
from .formats import FORMATS, Record
from .shards import Shard, shard_of

__all__ = ["Id", "NumberedQuestion", "Questions"]

Id: TypeAlias = str | int | float

_HASH_DIGITS: Final = 16
_KEYS: Final = ("question", "messages", "id", *PARAMETERS)
_ALLOWED: Final = 'a JSON string, or an object with "question" (a string) or "messages" (a list)'


@attrs.frozen
class NumberedQuestion:
    """A question of a batch.

    Attributes:
        line: line number in the file, from 1.
        messages: the messages to send.
        hash: of messages and options, independent of file and line.
        id: given by the user, or UNSET.
        options: sampling options of this question, which override those of the batch.
        number: among the questions without an id, from 0.
    """

    line: int
    messages: tuple[Message, ...] = attrs.field(repr=False)
    hash: str
    id: Id | Unset = UNSET
    options: Mapping[str, Any] = attrs.field(factory=dict)
    number: int = 0

    @property
    def content(self) -> dict[str, Any]:
        """The question as in the file: `question` for a user's text, else `messages`."""
        plain = [{**message.extra, "role": message.role, "content": message.content} for message in self.messages]
        if [message.keys() - {"role", "content"} for message in plain] == [set()] and plain[0]["role"] == "user":
            return {"question": plain[0]["content"]}
        return {"messages": plain}

    @property
    def place(self) -> str:
        """The line, and the id if there is one."""
        return (
            f"line {self.line}"
            if self.id is UNSET
            else f"line {self.line} (id {json.dumps(self.id, ensure_ascii=False)})"
        )


class Questions:
    """A file of questions.

    Args:
        name: of the file; `-` is stdin.
        format_: `jsonl`, `text` or `csv`.
        shard: the part to ask; None for all.

    Attributes:
        name: of the file, for messages.
        size: in bytes.

    Raises:
        InvalidInputError: the file cannot be opened.
    """

    def __init__(self, name: str, format_: str = "jsonl", shard: Shard | None = None) -> None:
        self.name = "stdin" if name == STDIN else name
        self._read = FORMATS[format_]
        self._shard = shard
        try:
            self._file = _open(name)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise InvalidInputError(f"{self.name}: {error.strerror or error}", field=self.name) from None

    def __iter__(self) -> Iterator[NumberedQuestion | InvalidInputError]:
        """Read the questions from the beginning; a bad line is yielded as an error, in its place.

        Raises:
            InvalidInputError: the file cannot be read.
        """
        self._file.seek(0)
        number = 0
        try:
            for record in self._read(self._file):
                question = self._question(record, number)
                yield question
                number += isinstance(question, NumberedQuestion) and question.id is UNSET
        except OSError as error:
            raise InvalidInputError(f"{self.name}: {error.strerror or error}", field=self.name) from None

    def has(self, question: NumberedQuestion) -> bool:
        """Whether the shard has a question."""
        shard = self._shard
        return shard is None or shard_of(question.id, question.number, shard.count) == shard.index

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _question(self, record: Record, number: int) -> NumberedQuestion | InvalidInputError:
        where = f"{self.name}, line {record.line}"
        try:
            if record.problem:
                raise InvalidInputError(record.problem)
            return _read_question(record.line, record.value, number)
        except InvalidInputError as error:
            return InvalidInputError(f"{where}: {error.message}", field=where)


def _open(name: str) -> IO[bytes]:
    """Open a file that can be read twice."""
    if name == STDIN:
        if sys.stdin is None:
            raise OSError("closed")
        return _copy(sys.stdin.buffer)
    file = Path(name).open("rb")  # noqa: SIM115  # `Questions` closes it
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    with file:
        return _copy(file)


def _copy(file: IO[bytes]) -> IO[bytes]:
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # `Questions` closes it
    shutil.copyfileobj(file, copy)
    copy.flush()
    return copy


def _read_question(line: int, value: Any, number: int) -> NumberedQuestion:
    fields = {"question": value} if isinstance(value, str) else value
    if not isinstance(fields, dict) or ("question" in fields) == ("messages" in fields):
        raise InvalidInputError(f"a question must be {_ALLOWED}")
    for key in fields:
        if key not in _KEYS:
            raise InvalidInputError(_unknown(key))
    id_ = fields.get("id", UNSET)
    if "id" in fields and not _is_id(id_):
        raise InvalidInputError.of("id", id_, "a string or a number")
    messages = _messages(fields)
    options = check_options({name: fields[name] for name in PARAMETERS if fields.get(name) is not None})
    return NumberedQuestion(line, messages, _hash(messages, options), id_, options, number)


def _is_id(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number or isinstance(value, str)


def _unknown(key: str) -> str:
    near = get_close_matches(key, _KEYS, n=1)
    hint = f'did you mean "{near[0]}"?' if near else f"known keys: {', '.join(_KEYS)}"
    return f"unknown key {json.dumps(key[:40])}; {hint}"


def _messages(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    if "messages" in fields:
        return read_messages(fields["messages"])
    if not isinstance(fields["question"], str | list):
        raise InvalidInputError.of("question", fields["question"], "a string, or a list of parts")
    message = user(fields["question"])
    if not message.text.strip():
        raise InvalidInputError("the question is empty")
    return (message,)


def _hash(messages: tuple[Message, ...], options: Mapping[str, Any]) -> str:
    plain: list[Any] = [{**message.extra, "role": message.role, "content": message.content} for message in messages]
    if options:
        plain.append(options)
    try:
        data = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        raise InvalidInputError("the question cannot be encoded as UTF-8") from None
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
