"""The formats of a file of questions: JSON lines, plain text, CSV. Pure.

Each reader turns lines of bytes into records. A record has a value as JSON would give it, or a problem; `questions`
decides whether the value is a question.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final, NoReturn

import attrs

from ..sampling import PARAMETERS

__all__ = ["FORMATS", "Record"]

_DELIMITERS: Final = ",;\t"
_COLUMNS: Final = ("question", "id", *PARAMETERS)
_NOT_UTF_8: Final = re.compile("[\udc80-\udcff]")  # bytes that were decoded with surrogateescape


@attrs.frozen
class Record:
    """A record of a file.

    Attributes:
        line: number of the first line, from 1.
        value: the question, as JSON would give it.
        problem: why there is no value, or "".
    """

    line: int
    value: Any = None
    problem: str = ""


def _texts(lines: Iterable[bytes]) -> Iterator[str]:
    """Decode lines; bytes that are not UTF-8 become lone surrogates, for `_problem` to find."""
    for number, data in enumerate(lines, start=1):
        yield data.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _problem(text: str) -> str:
    return "" if text.isascii() or not _NOT_UTF_8.search(text) else "not UTF-8 text"


# --- plain text -------------------------------------------------------------------------------------------------------


def read_text_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """Read one question a line, skipping blank lines."""
    for number, text in enumerate(_texts(lines), start=1):
        if text.strip():
            yield Record(number, text.strip(), _problem(text))


# --- JSON lines -------------------------------------------------------------------------------------------------------


def read_json_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """Read one JSON value a line, skipping blank lines; stop at once if the file is in another format."""
    first = True
    for number, text in enumerate(_texts(lines), start=1):
        if not text.strip():
            continue
        record = _parse(number, text)
        if first and record.problem and not _problem(text) and (hint := _other_format(text)):
            yield attrs.evolve(record, problem=f"{record.problem}. {hint}")
            return
        first = False
        yield record


def _parse(number: int, text: str) -> Record:
    problem = _problem(text)
    if problem:
        return Record(number, problem=problem)
    try:
        return Record(number, json.loads(text, parse_constant=_refuse_constant))
    except json.JSONDecodeError as error:
        return Record(number, problem=f"not JSON: {error.msg} (column {error.colno})")
    except (ValueError, RecursionError) as error:  # NaN, numbers of thousands of digits, brackets thousands deep
        return Record(number, problem=f"not readable as JSON: {error}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _other_format(text: str) -> str:
    """Guess the format of a file whose first line is not JSON."""
    if "question" in _cells(text, _delimiter(text)):
        return "The file looks like CSV: use --format csv"
    if text.lstrip().startswith("["):
        return "The file looks like a JSON array: write one question a line"
    if text.lstrip().startswith(("{", '"')):
        return ""
    return "The file looks like plain text: use --format text"


# --- CSV --------------------------------------------------------------------------------------------------------------


def read_csv(lines: Iterable[bytes]) -> Iterator[Record]:
    """Read a header, then one question a record; empty cells are left out, empty records skipped."""
    texts = _texts(lines)
    skipped, header = 0, next(texts, "")
    while header and not header.strip():
        skipped, header = skipped + 1, next(texts, "")
    delimiter = _delimiter(header)
    names = _cells(header, delimiter)
    problem = _header_problem(names)
    if problem:
        yield Record(skipped + 1, problem=problem)
        return
    rows = csv.reader(chain([header], texts), delimiter=delimiter, strict=True)
    next(rows)
    while True:
        line = skipped + rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Record(line, problem=f"not CSV: {error}")
            return
        if any(cell.strip() for cell in cells):
            yield _row(line, names, cells)


def _delimiter(header: str) -> str:
    return max(_DELIMITERS, key=header.count)


def _cells(header: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([header.strip("\r\n")], delimiter=delimiter), [])]


def _header_problem(names: list[str]) -> str:
    if "question" not in names:
        return f'the CSV header must have the column "question", got {", ".join(names)[:80] or "nothing"}'
    for name in names:
        if name not in _COLUMNS:
            return f'unknown column "{name[:40]}"; known columns: {", ".join(_COLUMNS)}'
        if names.count(name) > 1:
            return f'two columns "{name}"'
    return ""


def _row(line: int, names: list[str], cells: list[str]) -> Record:
    if len(cells) > len(names):
        return Record(line, problem=f"{len(cells)} cells, but the header has {len(names)}")
    problem = _problem("".join(cells))
    if problem:
        return Record(line, problem=problem)
    value: dict[str, Any] = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip()}
    for name, read in PARAMETERS.items():
        if name in value:
            try:
                value[name] = read(value[name])
            except ValueError:
                return Record(line, problem=f"{name} must be a number, got {value[name]!r}")
    return Record(line, {"question": "", **value})


FORMATS: Final[dict[str, Callable[[Iterable[bytes]], Iterator[Record]]]] = {
    "jsonl": read_json_lines,
    "text": read_text_lines,
    "csv": read_csv,
}
