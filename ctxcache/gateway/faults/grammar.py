"""Faults in one line of text, as `ctxcache serve --fault` reads them. Pure.

::

    [create: | chat:] KIND [=VALUE] {, OPTION=VALUE}

    fail=503                            every call is refused
    chat:rate_limit=7,times=2           the next two chats get a 429 with Retry-After: 7
    chat:disconnect=3,nth=5             the fifth chat is cut after three chunks
    delay=0.5,probability=0.1,seed=1    one call in ten waits
    limits,rpm=60,at_once=4             60 calls a minute, 4 at a time
    reply="Hello, world"                every answer; a text with a comma is a JSON string

`slow-first-token` is read as `slow_first_token`.
"""

import re
from typing import Any, Final

from ... import codec
from ...errors import InvalidInputError, ProtocolError
from .fault import KINDS, OPTIONS, Fault

__all__ = ["read_fault"]

_PART: Final = re.compile(r'([\w-]+)(?:=("(?:[^"\\]|\\.)*"|[^,"]*))?(?:,|$)')
_FORM: Final = "KIND, KIND=VALUE or KIND=VALUE,OPTION=VALUE, such as chat:fail=503,times=2"
_TEXTS: Final = ("on", "code", "text")


def read_fault(line: str) -> Fault:
    """Read one fault.

    Raises:
        InvalidInputError: names the part that cannot be read, what is allowed, and what was given.
    """
    if not isinstance(line, str):
        raise InvalidInputError.of("fault", line, "a Fault, or text: " + _FORM)
    endpoint, colon, rest = line.partition(":")
    if not colon or not re.fullmatch(r"\s*\w+\s*", endpoint):
        endpoint, rest = "", line
    (name, value), *options = _parts(rest.strip(), line)
    name = name.replace("-", "_")
    if name not in KINDS:
        raise InvalidInputError.of("fault", name, " or ".join(KINDS))
    given: dict[str, Any] = {"on": endpoint.strip()} if endpoint else {}
    first = [(KINDS[name].value or "value", value)] if value is not None else []
    for option, text in [*first, *options]:
        option = option.replace("-", "_")
        field = f"fault {name}: {option}"
        known = [*filter(None, [KINDS[name].value]), *KINDS[name].options, "on", "nth", "times", "probability", "seed"]
        if option not in known:
            raise InvalidInputError.of(f"fault {name}: option", option, " or ".join(known))
        if option in given:
            raise InvalidInputError.of(field, text, "given once")
        given[option] = _value(option, field, text)
    return Fault(name, **given)


def _parts(text: str, line: str) -> list[tuple[str, str | None]]:
    """Split at the commas outside of quotes, and each part at `=`."""
    parts: list[tuple[str, str | None]] = []
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise InvalidInputError.of("fault", line, _FORM)
        parts.append((part[1], part[2]))
        at = part.end()
    if not parts or text.endswith(","):
        raise InvalidInputError.of("fault", line, _FORM)
    return parts


def _value(option: str, field: str, text: str | None) -> Any:
    if text is None:
        OPTIONS[option](field, None)
    assert text is not None  # noqa: S101  # every check refuses None
    if text.startswith('"'):
        try:
            return codec.decode_json(text.encode())
        except ProtocolError:
            raise InvalidInputError.of(field, text, "a JSON string") from None
    if option in _TEXTS:
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
