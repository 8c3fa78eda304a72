"""Errors for unknown keyword arguments, with a suggestion: the nearest argument that the function has."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

__all__ = ["suggest_keywords", "unknown_keyword"]

P = ParamSpec("P")
T = TypeVar("T")

# Names in other SDKs, and the argument here.
_ELSEWHERE: Final = {
    "timeout": "timeouts",
    "max_retries": "retry",
    "default_headers": "headers",
    "http_client": "http",
    "organization": "headers",
    "max_completion_tokens": "max_tokens",
    "input": "messages",
    "instructions": "messages",
    "prompt": "messages",
    "functions": "tools",
    "function_call": "tool_choice",
    "extra_query": "extra_body",
}


def unknown_keyword(function: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a keyword argument that a function does not have, with the nearest name, if any."""
    known = list(known)
    nearest = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else get_close_matches(name, known, 1)
    return f"{function} has no argument {name!r}" + (f": did you mean {nearest[0]!r}?" if nearest else "")


def suggest_keywords(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function or constructor suggest the nearest keyword argument in place of an unknown argument."""
    code = function.__code__
    known = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]  # without self
    name = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def checked(*args: P.args, **named: P.kwargs) -> T:
        unknown = [keyword for keyword in named if keyword not in known]
        given = _Given(args, named)
        del args, named  # a secret may be among them, and tracebacks may show local variables
        if unknown:
            raise TypeError(unknown_keyword(f"{name}()", unknown[0], known))
        return given.call(function)

    return checked


class _Given:
    """The arguments of a call, hidden from tracebacks that show local variables."""

    __slots__ = ("_arguments",)

    def __init__(self, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._arguments = args, named

    def call(self, function: Callable[..., T]) -> T:
        return function(*self._arguments[0], **self._arguments[1])
