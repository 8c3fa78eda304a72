"""The sampling options that several commands share."""

import argparse
from collections.abc import Callable, Iterable
from typing import Any, Final

__all__ = ["PARAMETERS", "add_sampling_options", "sampling_of"]

# Option, type, metavar, help.
_OPTIONS: Final[tuple[tuple[str, Callable[[str], Any], str, str], ...]] = (
    ("temperature", float, "X", "randomness, from 0 to 2"),
    ("top-p", float, "X", "sample from this share of the probability mass, from 0 to 1"),
    ("max-tokens", int, "N", "longest reply, in tokens"),
    ("n", int, "N", "number of replies; the first is streamed, the others follow"),
    ("presence-penalty", float, "X", "from -2 to 2; above 0 favours new topics"),
    ("frequency-penalty", float, "X", "from -2 to 2; above 0 discourages repetition"),
)

# How each parameter of a question is read from text. A question has one answer, so `n` is not among them.
PARAMETERS: Final[dict[str, Callable[[str], Any]]] = {
    **{name.replace("-", "_"): kind for name, kind, *_ in _OPTIONS if name != "n"},
    "stop": str,
}


def add_sampling_options(parser: argparse.ArgumentParser, *, without: Iterable[str] = ()) -> None:
    """Add the options that `sampling_of` reads, except those in `without`."""
    group = parser.add_argument_group("sampling (defaults: the service's)")
    for name, kind, metavar, text in _OPTIONS:
        if name not in without:
            group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    group.add_argument("--stop", action="append", metavar="TEXT", help="end the reply before this text; up to 4 times")


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the sampling options on the command line, by parameter; the others are not sent."""
    return {name: value for name in ("n", *PARAMETERS) if (value := getattr(args, name, None)) is not None}
