"""Translates the exceptions of the libraries below into errors of this package, by a single table."""

from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from ...config import Secret, Timeouts
from ...errors import APIConnectionError, APITimeoutError, CtxCacheError, ProtocolError

__all__ = ["FOREIGN", "translate"]

_TEXT_SHOWN: Final = 500


def translate(error: BaseException, timeouts: Timeouts, key: Secret, *, sent: bool) -> CtxCacheError:
    """Turn an exception of a library into an error of this package; `sent` says whether the request may have run."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return APITimeoutError.of("connect", timeouts.connect)
    what, make = next((what, make) for kinds, what, make in _TABLE if isinstance(error, kinds))
    # The str of a ClientResponseError has the URL, and a proxy's URL may have a password.
    if isinstance(error, aiohttp.ClientResponseError):
        text = error.message
    elif isinstance(error, aiohttp.ClientConnectorError):
        text = f"{error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    else:
        text = f"{type(error).__name__}: {error}"
    return make(key.redact(f"{what}: {' '.join(text.split())}")[:_TEXT_SHOWN], sent)


def _unsent(text: str, sent: bool) -> CtxCacheError:
    return APIConnectionError(text)


def _hopeless(text: str, sent: bool) -> CtxCacheError:
    return APIConnectionError(text, hopeless=True)


def _as_known(text: str, sent: bool) -> CtxCacheError:
    return APIConnectionError(text, sent=sent)


def _protocol(text: str, sent: bool) -> CtxCacheError:
    return ProtocolError(text)


# What the libraries below raise. RuntimeError and ValueError are how aiohttp says that a connection is gone, or that a
# setting of the caller's own `ClientSession` contradicts ours.
FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, EOFError, TimeoutError, RuntimeError, ValueError)
_TABLE: Final[tuple[tuple[Any, str, Callable[[str, bool], CtxCacheError]], ...]] = (
    (
        (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch),
        "no secure connection",
        _hopeless,
    ),
    ((aiohttp.ClientHttpProxyError, aiohttp.ClientConnectorError), "cannot connect", _unsent),
    ((aiohttp.ClientResponseError, HttpProcessingError), "the answer is not HTTP", _protocol),
    (aiohttp.ClientPayloadError, "the answer was cut off", _as_known),
    ((aiohttp.InvalidURL, ValueError), "the request could not be made", _hopeless),
    (Exception, "the connection broke", _as_known),
)
