"""The formats of a file of questions."""

from typing import Any

import pytest

from ctxcache.cli.batch.formats import FORMATS, Record


def read(format_: str, data: str | bytes) -> list[Record]:
    """The records in some data."""
    encoded = data.encode() if isinstance(data, str) else data
    return list(FORMATS[format_](encoded.splitlines(keepends=True)))


def values(format_: str, data: str | bytes) -> list[tuple[int, Any]]:
    """Line and value of each record; none may have a problem."""
    records = read(format_, data)
    assert [record.problem for record in records] == [""] * len(records)
    return [(record.line, record.value) for record in records]


# --- JSON lines -------------------------------------------------------------------------------------------------------


def test_json_lines() -> None:
    """Each line is a value; blank lines and a byte order mark are skipped."""
    assert values("jsonl", '\ufeff"one"\n\n{"question": "two"}\r\n 3') == [(1, "one"), (3, {"question": "two"}), (4, 3)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("How long?", "not JSON: Expecting value (column 1)"),
        (b"\xff", "not UTF-8 text"),
        ("1" * 5000, "not readable as JSON: "),
        ("[" * 100_000, "not readable as JSON: "),
        ('{"temperature": NaN}', "not readable as JSON: NaN is not JSON"),
    ],
)
def test_bad_json_line(line: str | bytes, problem: str) -> None:
    """A bad line is a record with a problem, and the lines after it are read."""
    data = line.encode() if isinstance(line, str) else line
    first, second, third = read("jsonl", b'"one"\n' + data + b'\n"three"\n')
    assert (first.value, third.value) == ("one", "three")
    assert (second.line, second.value) == (2, None)
    assert second.problem.startswith(problem)


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("How long is the warranty?\nAnd abroad?", "looks like plain text: use --format text"),
        ("Who pays, and how much?\n", "looks like plain text: use --format text"),
        ("\n\nid,question\n1,Who?\n", "looks like CSV: use --format csv"),
        ('"question";"id"\n', "looks like CSV: use --format csv"),
        ("question\nWho?\n", "looks like CSV: use --format csv"),
        ('[{"question": "Who?"},\n', "looks like a JSON array: write one question a line"),
    ],
)
def test_other_formats_are_recognised(data: str, hint: str) -> None:
    """A file in another format is one problem, with the way to read it."""
    (record,) = read("jsonl", data)
    assert record.problem.startswith("not JSON: ")
    assert record.problem.endswith(hint)


@pytest.mark.parametrize("data", ['{"question": "Who?\n"Who?"', '"Who\n"Who?"', b'\xff\xfe"\n"Who?"'])
def test_broken_json_is_no_other_format(data: str | bytes) -> None:
    """A first line that begins like JSON, or is not text, is a bad line among others."""
    first, second = read("jsonl", data)
    assert first.problem
    assert "format" not in first.problem
    assert second.value == "Who?"


# --- plain text -------------------------------------------------------------------------------------------------------


def test_text() -> None:
    """Each line is a question, without the white space around it."""
    assert values("text", "\ufeffone\n\n  two\t\r\n{}") == [(1, "one"), (3, "two"), (4, "{}")]


def test_text_that_is_not_utf_8() -> None:
    """A line that is not UTF-8 is a problem of its own."""
    first, second = read("text", b"na\xefve\nna\xc3\xafve\n")
    assert (first.line, first.problem) == (1, "not UTF-8 text")
    assert second == Record(2, "naïve")


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(delimiter: str) -> None:
    """The header names the columns, in any order; an empty cell is no value, and a record may take several lines."""
    data = (
        "\ufeff\nid,question,temperature,max_tokens,stop\r\n"
        'a,"Who, and\nwhy?",0.5,,\r\n'
        ",,,,\n"
        "\n"
        "7, When? ,,20,END\n"
        "b,Where?\n"
        "c,\n"
    )
    assert values("csv", data.replace(",", delimiter)) == [
        (3, {"id": "a", "question": f"Who{delimiter} and\nwhy?", "temperature": 0.5}),
        (7, {"id": "7", "question": "When?", "max_tokens": 20, "stop": "END"}),
        (8, {"id": "b", "question": "Where?"}),
        (9, {"id": "c", "question": ""}),
    ]


def test_csv_of_one_column() -> None:
    """A header with the one column `question` is enough, and quotes may hold quotes."""
    assert values("csv", 'question\nWho?\n"""He"", she said"\n') == [
        (2, {"question": "Who?"}),
        (3, {"question": '"He", she said'}),
    ]


@pytest.mark.parametrize("data", ["", "\n \n", "\ufeff"])
def test_empty_csv(data: str) -> None:
    """A file without a header is a problem."""
    (record,) = read("csv", data)
    assert record.problem == 'the CSV header must have the column "question", got nothing'


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("id,text", 'the CSV header must have the column "question", got id, text'),
        ("question,note", 'unknown column "note"; known columns: question, id, temperature, '),
        ("question,id,id", 'two columns "id"'),
    ],
)
def test_bad_header(header: str, problem: str) -> None:
    """A bad header is the only problem of a file."""
    (record,) = read("csv", f"{header}\nWho?,1\n")
    assert record.line == 1
    assert record.problem.startswith(problem)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (b"Who?,1,0.5,more", "4 cells, but the header has 3"),
        (b"Who?,1,warm", "temperature must be a number, got 'warm'"),
        (b"na\xefve,1,", "not UTF-8 text"),
    ],
)
def test_bad_row(row: bytes, problem: str) -> None:
    """A bad row is a problem of its own."""
    first, second = read("csv", b"question,id,temperature\n" + row + b"\nWho?,2,\n")
    assert (first.line, first.problem) == (2, problem)
    assert second.value == {"question": "Who?", "id": "2"}


@pytest.mark.parametrize("row", ['"Who?\nWhy?\n', '"Who?" or why?\n'])
def test_not_csv(row: str) -> None:
    """Broken quotes end the reading, with the line where the record began."""
    good, bad = read("csv", f"question\nHow?\n{row}")
    assert good.value == {"question": "How?"}
    assert bad.line == 3
    assert bad.problem.startswith("not CSV: ")
