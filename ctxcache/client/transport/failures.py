"""Translates the exceptions of the libraries below into errors of this package, by a single table."""

import errno
import os
import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from yarl import URL

from ...config import Secret, Timeouts
from ...errors import APIConnectionError, APITimeoutError, CtxCacheError, ProtocolError

__all__ = ["FOREIGN", "is_local", "translate"]

_TEXT_SHOWN: Final = 500
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


def translate(error: BaseException, timeouts: Timeouts, key: Secret, *, sent: bool, proxy: str = "") -> CtxCacheError:
    """Turn an exception of a library into an error of this package.

    Args:
        error: the exception.
        timeouts: the limits in force.
        key: redacted from the message.
        sent: whether the request may have run.
        proxy: host and port of the proxy that connections go through, if any.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return APITimeoutError.of("connect", timeouts.connect, through=proxy and f"the proxy {proxy}")
    what, make = next((what, make) for kinds, what, make in _TABLE if isinstance(error, kinds))
    reason = " ".join(str(_reason(error)).split())
    failure = make(key.redact(f"{what}: {reason}" if reason else what)[:_TEXT_SHOWN], sent)
    if isinstance(failure, APIConnectionError) and is_local(error):
        failure.local = True
    return failure


def is_local(error: BaseException) -> bool:
    """Whether an exception of a library tells that this machine has no file descriptor or memory left."""
    return getattr(error, "errno", None) in _SHORTAGES


def _reason(error: BaseException) -> str:
    """Return the reason for a failure, in words that name no class of a library; "" where the error tells none."""
    # The str of a ClientResponseError has the URL, and a proxy's URL may have a password.
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy {URL(str(error.request_info.real_url)).host} answered {error.status} {error.message}"
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return error.message.removesuffix("^")  # llhttp points at a place in the line above
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        verdict = error.certificate_error
        return f"{error.host}:{error.port}: {getattr(verdict, 'verify_message', '') or verdict}"
    if isinstance(error, aiohttp.ClientConnectorError):
        proxy = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        return f"{proxy}{error.host}:{error.port}: {_os_reason(error.os_error)}"
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return f"{error.host}:{error.port}: the certificate has another fingerprint"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed by the server"
    if isinstance(error, OSError):
        return _os_reason(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        broken = isinstance(error.__cause__ or error.__context__, ContentEncodingError)
        return "the compressed data are damaged" if broken else ""
    return str(error)


def _os_reason(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return _os_reason(error.os_error)
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(number)  # asyncio's text repeats the address
    return getattr(error, "strerror", None) or str(error)


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
