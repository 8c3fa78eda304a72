"""The sampling options of `chat` and `map`."""

import argparse
from typing import Any

import pytest

from ctxcache.cli.sampling import add_sampling_options, sampling_of

ALL = {
    "temperature": 0.2,
    "top_p": 0.9,
    "max_tokens": 5,
    "n": 2,
    "presence_penalty": -1.5,
    "frequency_penalty": 2.0,
    "stop": ["a", "b"],
}


def parse(*argv: str, **options: Any) -> dict[str, Any]:
    """Read options."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_sampling_options(parser, **options)
    return sampling_of(parser.parse_args(argv))


def test_all_under_the_names_of_the_service() -> None:
    """Each option is a parameter of the same name, with a number or a list of texts."""
    argv: list[str] = []
    for name, value in ALL.items():
        for item in value if isinstance(value, list) else [value]:
            argv += [f"--{name.replace('_', '-')}", str(item)]
    assert parse(*argv) == ALL


def test_no_option_is_no_parameter() -> None:
    """An option that is not on the command line is not among the parameters."""
    assert parse() == {}
    assert parse("--temperature", "0") == {"temperature": 0.0}


def test_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A command can leave options out, which are unknown then."""
    assert parse("--top-p", "1", without=["n"]) == {"top_p": 1.0}
    with pytest.raises(SystemExit):
        parse("--n", "2", without=["n"])
    assert "unrecognized arguments: --n" in capsys.readouterr().err
