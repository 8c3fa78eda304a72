"""The package's logger, `ctxcache`. A server's ids and messages cannot forge lines: control characters are escaped."""

import logging
from typing import Any, Final

__all__ = ["log", "one_line"]


def one_line(text: str) -> str:
    r"""Return the text with line ends and other unprintable characters escaped.

    >>> print(one_line("ctx-1\nERROR forged"))
    ctx-1\nERROR forged
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


class _OneLine(logging.Filter):
    """Escapes the arguments of a log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        arguments: Any = record.args
        if isinstance(arguments, tuple):
            record.args = tuple(one_line(value) if isinstance(value, str) else value for value in arguments)
        return True


log: Final = logging.getLogger("ctxcache")
log.addFilter(_OneLine())
