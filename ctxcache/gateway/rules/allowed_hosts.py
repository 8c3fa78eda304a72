"""The names by which a client may call the gateway.

A web page can have a name of its own resolved to this machine (DNS rebinding), and then call a gateway that listens on
the loopback address alone. The browser sends the page's name as `Host`, so there only names of this machine are served.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import attrs

from ...errors import InvalidInputError
from ...hosts import is_loopback

__all__ = ["AllowedHosts"]

_ANY: Final = "*"
_WILDCARDS: Final = ("", "0.0.0.0", "::")  # noqa: S104  # addresses to listen on, no names


@attrs.frozen
class AllowedHosts:
    """Decides by a request's `Host`.

    Attributes:
        names: the names allowed beside those of the loopback interface, in lower case; None allows all.
    """

    names: frozenset[str] | None

    @classmethod
    def of(cls, listening: str, names: object) -> "AllowedHosts":
        """Read the setting of a gateway that listens on a host, whose own name is allowed as well; None is the default.

        Raises:
            InvalidInputError: for anything but strings.
        """
        if names is None:
            return cls(frozenset() if is_loopback(listening) else None)
        allowed = "a list of host names without port, or ['*'] for all"
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise InvalidInputError.of("allowed_hosts", names, allowed)
        given = list(names)
        for name in given:
            if not isinstance(name, str) or not name or (":" in name and name.count(":") == 1):
                raise InvalidInputError.of("allowed_hosts", name, allowed)
        own = () if listening in _WILDCARDS else (listening,)
        return cls(None if _ANY in given else frozenset(_plain(name) for name in (*given, *own)))

    def allows(self, host: str | None) -> bool:
        """Whether a request may be served; without a `Host`, as in HTTP/1.0, it comes from no browser."""
        return self.names is None or host is None or _is_among(host, self.names)


@lru_cache(maxsize=64)  # clients send the same few
def _is_among(host: str, names: frozenset[str]) -> bool:
    name = _plain(host)
    return is_loopback(name) or name in names


def _plain(host: str) -> str:
    """Return a host without port, brackets and the root's dot, in lower case."""
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host.lower().rstrip(".")
