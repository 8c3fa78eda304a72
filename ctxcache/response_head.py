"""The head of an answer, kept as the transport read it: most heads are never looked at."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from .config import Secret

__all__ = ["NO_HEAD", "ResponseHead", "is_secret_name"]

# The names of rate limits speak of tokens, too.
_SECRET_NAME: Final = re.compile(
    r"(?!.*rate-?limit).*(?:auth|cookie|token|secret|key|password|credential|signature|session)", re.IGNORECASE
)

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


def is_secret_name(name: str) -> bool:
    """Whether the name of a header suggests that its value is a secret."""
    return _SECRET_NAME.match(name) is not None


class ResponseHead(Mapping[str, str]):
    """The headers of an answer, a read-only mapping, and the status.

    Names may be asked for in any case, and are listed in lower case. The values of headers with the same name are
    joined by ", ". `repr` hides values whose names suggest a secret.

    >>> head = ResponseHead(200, {"Content-Type": "text/plain", "Set-Cookie": "id=7"})
    >>> head["content-type"], head.get("Retry-After")
    ('text/plain', None)
    >>> head
    ResponseHead(200, {'content-type': 'text/plain', 'set-cookie': '…'})

    Args:
        status: the HTTP status; None where there was no answer.
        fields: the names and values; a multidict may have a name several times.
        secrets: replaced by `…` in names and values.
    """

    __slots__ = ("_fields", "_secrets", "_values", "status")

    def __init__(self, status: int | None = None, fields: Mapping[str, str] = _NO_FIELDS, *secrets: Secret) -> None:
        self.status = status
        self._fields = fields
        self._secrets = secrets
        self._values: dict[str, str] | None = None  # the same by lower-case names, without secrets

    def _read(self) -> dict[str, str]:
        if self._values is None:
            values: dict[str, str] = {}
            for field in self._fields.items():
                name, value = map(self._cleaned, field)
                name = name.lower()
                values[name] = f"{values[name]}, {value}" if name in values else value
            self._values = values
        return self._values

    def _cleaned(self, text: str) -> str:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for secret in self._secrets:
            text = secret.redact(text)
        return text

    def redacted(self, secret: Secret) -> "ResponseHead":
        """Return the same head without this secret."""
        return ResponseHead(self.status, self._fields, *self._secrets, secret)

    def __getitem__(self, name: str) -> str:
        value = self._read().get(name.lower()) if isinstance(name, str) else None
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        shown = {name: "…" if is_secret_name(name) else value for name, value in self.items()}
        return f"ResponseHead({self.status}, {shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ResponseHead, (self.status, self._read())


NO_HEAD: Final = ResponseHead()
