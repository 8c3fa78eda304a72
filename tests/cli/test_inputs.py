"""What the user hands over: files, stdin, messages, short forms of values."""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxcache import InvalidInputError, Message
from ctxcache.cli.inputs import (
    AddMessage,
    MessageSource,
    non_negative,
    port,
    read_messages,
    read_stdin,
    read_text,
    seconds,
    truncation,
    whole_number,
)


def messages_in(file: Path, content: str | bytes) -> list[Message]:
    """Read a file of messages."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_messages([MessageSource(None, str(file), is_file=True)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that does not exist yet."""
    return tmp_path / "messages.json"


@pytest.mark.parametrize(
    "content",
    [
        '[{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi\u2028there"}]',
        '\n [\n{"role": "system", "content": "Be brief"},\n{"role": "user", "content": "Hi\u2028there"}\n]\n',
        '{"role": "system", "content": "Be brief"}\n{"role": "user", "content": "Hi\u2028there"}',
        '{"role": "system", "content": "Be brief"}\r\n\r\n{"role": "user", "content": "Hi\u2028there"}\r\n',
        '\ufeff{"role": "system", "content": "Be brief"}\n{"role": "user", "content": "Hi\u2028there"}\n',
    ],
    ids=["array", "array over lines", "lines", "lines with CRLF and a gap", "byte order mark"],
)
def test_messages_in_both_forms(file: Path, content: str) -> None:
    """An array and JSON lines are read, however they are laid out; only line feeds end a line."""
    assert messages_in(file, content) == [Message("system", "Be brief"), Message("user", "Hi\u2028there")]


def test_messages_keep_further_keys(file: Path) -> None:
    """Unknown keys are kept, to be sent."""
    (message,) = messages_in(file, '{"role": "user", "content": "Hi", "name": "Ann"}')
    assert message.extra == {"name": "Ann"}


@pytest.mark.parametrize(
    ("content", "where", "what"),
    [
        ('[\n{"role": "user",\n]', ", line 3: ", "not JSON: "),
        ('{"role": "user", "content": "x"}\n{"role": "user" "content": "x"}', ", line 2: ", "(column 17)"),
        ('{"role": "user", "content": "x"}\n\n7', ", line 3: ", "must be an object with role and content, got 7"),
        ('[{"role": "user", "content": "x"}, {"role": 7, "content": "x"}]', ", message 2: ", "got 7"),
        ('{"role": "user"}', ", line 1: ", "beside tool_calls, got None"),
        ("[]", ": ", "no messages"),
        (" \n", ": ", "no messages"),
        ("[" * 100_000, ": ", "not readable as JSON"),
        (b'{"role":\n"\xff"}', ": ", "line 2 is not UTF-8"),
    ],
)
def test_what_is_wrong_is_named(file: Path, content: str | bytes, where: str, what: str) -> None:
    """An error names the file, the line or the message, and the problem."""
    with pytest.raises(InvalidInputError) as caught:
        messages_in(file, content)
    assert str(caught.value).startswith(f"{file}{where}")
    assert what in str(caught.value)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A file that cannot be read is named, with the reason."""
    for name, reason in ((tmp_path / "none.md", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InvalidInputError, match=reason) as caught:
            read_text(str(name))
        assert str(caught.value).startswith(f"{name}: ")


def test_stdin_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed stdin is reported as such."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidInputError, match="stdin: closed"):
        read_text("-")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3600", 3600),
        ("3600s", 3600),
        ("90m", 5400),
        ("1h", 3600),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1d2h3m4s", 93784),
    ],
)
def test_durations(text: str, expected: int) -> None:
    """Seconds, or days, hours, minutes and seconds in this order."""
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "1w", "30m1h", "1.5h", "-1", "1 h", "٣h"])
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused, with examples of durations."""
    with pytest.raises(argparse.ArgumentTypeError, match="1h or 1h30m"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("last_history_tokens=4096", {"last_history_tokens": 4096}),
        ("last_history_tokens", {}),
        ("rolling_tokens", {"rolling_tokens": True}),
        ("rolling_tokens=true", {"rolling_tokens": True}),
        ("rolling_tokens=false", {"rolling_tokens": False}),
        ("rolling_tokens, max_window_tokens=32768", {"rolling_tokens": True, "max_window_tokens": 32768}),
    ],
)
def test_truncation_strategies(text: str, expected: dict[str, Any]) -> None:
    """A strategy is its type, with its value where it has one, and further fields after commas."""
    assert truncation(text) == {"type": text.partition("=")[0].partition(",")[0], **expected}


@pytest.mark.parametrize("text", ["last_history_tokens=many", "rolling_tokens=", "rolling_tokens,max_window_tokens"])
def test_what_is_no_truncation_strategy(text: str) -> None:
    """A field without a valid value is refused."""
    with pytest.raises(argparse.ArgumentTypeError, match="needs a value: NAME=NUMBER"):
        truncation(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("+7", 7), ("007", 7)])
def test_whole_numbers(text: str, value: int) -> None:
    """A whole number is read in decimal digits."""
    assert whole_number(0)(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1_0", "many", "9" * 5000])
def test_not_a_whole_number(text: str) -> None:
    """Anything else, and a number below the minimum, is refused with the minimum."""
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number from 0 up"):
        whole_number(0)(text)


@pytest.mark.parametrize("text", ["-0.1", "nan", "inf", "fast", ""])
def test_not_a_number_from_0_up(text: str) -> None:
    """A number must be finite and not below 0."""
    assert non_negative("2.5") == 2.5
    with pytest.raises(argparse.ArgumentTypeError, match="is not a number from 0 up"):
        non_negative(text)


@pytest.mark.parametrize("text", ["-1", "65536", "http", "99999999"])
def test_not_a_port(text: str) -> None:
    """A port is a number from 0 to 65535."""
    assert (port("0"), port("65535")) == (0, 65535)
    with pytest.raises(argparse.ArgumentTypeError, match="is not a port from 0 to 65535"):
        port(text)


def test_message_options_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Message options are collected in the order given; `-` is stdin, which only one option may name."""
    (tmp_path / "manual.md").write_text("# Manual\n")
    parser = argparse.ArgumentParser()
    for option in ("--system", "--user-file", "--messages"):
        parser.add_argument(option, dest="sources", action=AddMessage)
    argv = ["--user-file", str(tmp_path / "manual.md"), "--messages", "-", "--system", "Be brief"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"role": "user", "content": "Hi"}')))
    messages = read_messages(parser.parse_args(argv).sources)
    assert messages == [Message("user", "# Manual\n"), Message("user", "Hi"), Message("system", "Be brief")]
    with pytest.raises(InvalidInputError, match="stdin: can be read only once, but two options name it"):
        read_messages(parser.parse_args([*argv, "--user-file", "-"]).sources)


def test_piped_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """A piped text loses the line breaks at its end, and no other."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\none\n\r\n")))
    assert read_stdin() == "\none"
