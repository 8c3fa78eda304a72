"""Errors for arguments that a function does not have, with a suggestion: the nearest argument that the function has."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from inspect import iscoroutinefunction, signature
from typing import Any, Final, TypeVar

__all__ = ["refusing", "suggest_fields", "suggest_keywords", "unknown_keyword"]

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

# Names in other SDKs, and the arguments here, the first that a function has; () where nothing here does the same.
_ELSEWHERE: Final[Mapping[str, tuple[str, ...]]] = {
    "timeout": ("timeouts",),
    "max_retries": ("retry", "attempts"),
    "retries": ("retry", "attempts"),
    "default_headers": ("headers",),
    "headers": ("extra_headers",),
    "http_client": ("http",),
    "organization": ("headers",),
    "project": ("headers",),
    "key": ("api_key",),
    "token": ("api_key",),
    "url": ("base_url",),
    "endpoint": ("base_url",),
    "default_query": (),
    "max_completion_tokens": ("max_tokens",),
    "max_output_tokens": ("max_tokens",),
    "stop_sequences": ("stop",),
    "input": ("messages", "question"),
    "instructions": ("messages",),
    "system": ("messages",),
    "prompt": ("messages", "question"),
    "content": ("messages", "question"),
    "expires_in": ("ttl",),
    "functions": ("tools",),
    "function_call": ("tool_choice",),
    "reasoning": ("thinking",),
    "reasoning_effort": ("thinking",),
    "extra_query": (),
    "seed": ("extra_body",),
    "metadata": ("extra_body",),
    "store": ("extra_body",),
    "max_concurrency": ("concurrency",),
    "workers": ("concurrency",),
    "read": ("idle",),
    "output_tokens": ("output",),
    "cached_input": ("cached",),
    "storage": ("storage_per_hour",),
}

# What callers write in place of a class of this package.
_CALLED: Final = {"ChatEndpoint": "session.chat", "ContextEndpoint": "session.context"}


def unknown_keyword(function: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a keyword argument that a function does not have, with the nearest name, if any."""
    known = [argument for argument in known if not argument.startswith("_")]
    nearest = [argument for argument in _ELSEWHERE.get(name, ()) if argument in known]
    if not nearest and _ELSEWHERE.get(name) != ():
        from difflib import get_close_matches  # needed for errors only

        nearest = get_close_matches(name, known, 1)
    return f"{function} has no argument {name!r}" + (f": did you mean {nearest[0]!r}?" if nearest else "")


def suggest_keywords(function: F, *, refuse: Callable[[Mapping[str, Any]], object] = lambda named: None) -> F:
    """Make a method explain arguments that the method does not have, or lacks, by a `TypeError` that helps.

    Args:
        function: a method, or an `__init__`, or the function of a class method.
        refuse: may raise an error of its own for the keyword arguments that the method does not have.
    """
    arguments = _Arguments(function)

    @wraps(function)
    def checked(*args: Any, **named: Any) -> Any:
        given = _Given(args, named)
        del args, named  # a secret may be among them, and tracebacks may show local variables
        given.check(arguments, refuse)
        return given.call(function)

    @wraps(function)
    async def awaited(*args: Any, **named: Any) -> Any:
        given = _Given(args, named)
        del args, named
        given.check(arguments, refuse)
        return await given.call(function)

    wrapper: Any = awaited if iscoroutinefunction(function) else checked
    if any(name.startswith("_") for name in arguments.names):
        wrapper.__signature__ = _public(function)  # for help()
    return wrapper  # type: ignore[no-any-return]  # a function of the same parameters


def refusing(refuse: Callable[[Mapping[str, Any]], object]) -> Callable[[F], F]:
    """Return `suggest_keywords` with its `refuse`, as a decorator."""
    return partial(suggest_keywords, refuse=refuse)


def suggest_fields(kind: C) -> C:
    """Make the constructor of an attrs class explain arguments as `suggest_keywords` does."""
    constructor: Any = kind
    constructor.__init__ = suggest_keywords(constructor.__init__)
    return kind


class _Arguments:
    """The arguments that a method takes.

    Attributes:
        name: the method's name.
        of_class: whether the method belongs to a class.
        names: of all arguments but `self`, in order.
        known: the same, as a set.
        most: how many arguments may be given without their names, `self` included.
        least: as many of those have no default, `self` included.
        required: the keyword arguments that must be given.
    """

    __slots__ = ("known", "least", "most", "name", "names", "of_class", "required")

    def __init__(self, function: Callable[..., Any]) -> None:
        code = function.__code__
        self.name = function.__name__
        self.of_class = function.__qualname__ != function.__name__
        self.names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        self.known = frozenset(self.names)
        self.most = code.co_argcount
        self.least = self.most - len(function.__defaults__ or ())
        self.required = frozenset(self.names[self.most - 1 :]) - (function.__kwdefaults__ or {}).keys()

    def problem(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> str | None:
        """Return the message for wrong arguments, None for right ones; the first of `args` is `self` or the class."""
        given, count = named.keys(), len(args)
        if given <= self.known and self.required <= given and self.least <= count <= self.most:
            return None
        called = self._called(args[0] if args else None)
        for name in given:
            if name not in self.known:
                return unknown_keyword(called, name, self.names)
        if count > self.most:
            after = f"after {', '.join(self.names[: self.most - 1])}" if self.most > 1 else "only"
            examples = [f", such as {name}=…" for name in self.names[self.most - 1 :] if not name.startswith("_")]
            return f"{called} takes keyword arguments {after}{''.join(examples[:1])}"
        for name in self.names[count - 1 : self.least - 1] if count else ():
            if name not in given:
                return f"{called} needs the argument {name!r}"
        missing = next((name for name in self.names if name in self.required - given), None)
        return missing and f"{called} needs the keyword argument {missing!r}"

    def _called(self, owner: object) -> str:
        """Return the function as callers write the call."""
        if not self.of_class:
            return f"{self.name}()"
        kind = (owner if isinstance(owner, type) else type(owner)).__name__
        kind = _CALLED.get(kind, kind)
        return f"{kind}()" if self.name == "__init__" else f"{kind}.{self.name}()"


class _Given:
    """The arguments of a call, hidden from tracebacks that show local variables."""

    __slots__ = ("_args", "_named")

    def __init__(self, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._args, self._named = args, named

    def check(self, arguments: _Arguments, refuse: Callable[[Mapping[str, Any]], object]) -> None:
        problem = arguments.problem(self._args, self._named)
        if problem is not None:
            refuse({name: value for name, value in self._named.items() if name not in arguments.known})
            raise TypeError(problem)

    def call(self, function: Callable[..., Any]) -> Any:
        return function(*self._args, **self._named)


def _public(function: Callable[..., Any]) -> Any:
    """Return a function's signature without private parameters."""
    whole = signature(function)
    return whole.replace(
        parameters=[parameter for name, parameter in whole.parameters.items() if not name.startswith("_")]
    )
