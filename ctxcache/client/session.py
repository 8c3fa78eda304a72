"""`AsyncSession`: a key, a base URL and a pool of connections, in an event loop."""

import asyncio
import copy
import hashlib
import hmac
import os
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from ..config import DEFAULT_BASE_URL, Limits, Retry, Secret, Timeouts, hide, read_retry, read_timeouts
from ..errors import InvalidInputError
from ..hosts import is_public
from ..keywords import suggest_keywords
from ..log import log
from ..models import Usage
from ..wire import check_headers
from .calls import Calls
from .environment import Environment
from .hooks import Hooks
from .resources import ChatEndpoint, ContextEndpoint
from .resources.parameters import ChatParameters, hidden_defaults

if TYPE_CHECKING:
    import aiohttp

    from .transport.transport import Transport

__all__ = ["AsyncSession", "checked_insecure", "checked_url"]

T = TypeVar("T")
_TIMEOUTS, _LIMITS, _RETRY, _HOOKS = Timeouts(), Limits(), Retry(), Hooks()
_ENDPOINTS = ("/context/create", "/chat/completions")  # which callers copy along


class AsyncSession:
    """A client of the two endpoints, as `session.context` and `session.chat`.

    Make a session for each service and keep the session. Any number of tasks may use a session at once, all in the
    event loop of the first use. Close with `async with`, or `await session.aclose()`.

    Args:
        api_key: the key; default: the environment's `CTXCACHE_API_KEY`. The key never prints.
        base_url: the gateway's URL, up to and with the version; default: the environment's `CTXCACHE_BASE_URL`, else
            `https://gateway.serevixai.ai/v1`.
        timeouts: seconds for a whole call, or a `Timeouts`. Default: `Timeouts()`.
        limits: limits on connections and memory. Default: `Limits()`.
        retry: the number of retries after the first attempt, 0 for none, or a `Retry`. Default: `Retry()`.
        headers: further headers of every request, in place of those that the client sends itself.
        http: your own `aiohttp.ClientSession`, for TLS settings, proxies, tracing or middlewares. The pool of that
            session applies as well, the time-outs do not, and closing is up to you. By default the proxies of the
            environment are used (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), never for this machine.
        hooks: functions that are called on events, see `Hooks`. Default: none.
        chat_defaults: parameters of every chat that does not give its own, see `ChatParameters`. `UNSET` in a call
            leaves a default out; `stream_options` go with streams alone.
        allow_insecure: whether the key may go to a public host over plain http. Default: no, only to hosts of this
            machine and of private networks.

    Raises:
        InvalidInputError: no key, a setting out of range, or a key that others could read on the way.
    """

    # For a session whose constructor failed: repr and `__del__` must work, too.
    base_url = "that was not made"
    _closed = True

    _environment = Environment()  # tests override this in a subclass
    _owner: "AsyncSession | None" = None  # whose connections a session of `with_options` uses

    @suggest_keywords
    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeouts: Timeouts | float | None = None,
        limits: Limits | None = None,
        retry: Retry | int | None = None,
        headers: Mapping[str, str] | None = None,
        http: "aiohttp.ClientSession | None" = None,
        hooks: Hooks | None = None,
        chat_defaults: ChatParameters | None = None,
        allow_insecure: bool = False,
    ) -> None:
        # Tracebacks may show local variables: from here on none holds a secret.
        self._key = _secret(os.environ.get("CTXCACHE_API_KEY", "") if api_key is None else api_key)
        url = hide(base_url or os.environ.get("CTXCACHE_BASE_URL") or DEFAULT_BASE_URL)
        given_headers = hide(headers)
        chat_defaults = hidden_defaults(chat_defaults)
        api_key = base_url = headers = None
        _check_key(self._key)
        self.base_url = checked_url(url)
        self._allow_insecure = checked_insecure(self.base_url, allow_insecure)
        self._timeouts = timeouts if isinstance(timeouts, Timeouts) else read_timeouts(timeouts, _TIMEOUTS)
        self._retry = read_retry(retry, _RETRY)
        self._limits, self._hooks = _checked("limits", limits, _LIMITS), _checked("hooks", hooks, _HOOKS)
        self._headers, self._http = check_headers(given_headers, "headers"), http
        self._calls = Calls(
            self._connect,
            self._key,
            timeouts=self._timeouts,
            limits=self._limits,
            policy=self._retry,
            hooks=self._hooks,
            headers=self._headers,
            client_request_id=self._headers.pop("X-Client-Request-Id", None),
            environment=self._environment,
        )
        self._make_endpoints(chat_defaults)
        self._closed = False

    def _make_endpoints(self, chat_defaults: ChatParameters) -> None:
        self._chat_defaults = chat_defaults
        self.context = ContextEndpoint(self._calls)
        ChatEndpoint(self._calls, {}).prepare(model="-", **chat_defaults)  # checks
        self.chat = ChatEndpoint(self._calls, dict(chat_defaults))

    @suggest_keywords
    def with_options(
        self,
        *,
        timeouts: Timeouts | float | None = None,
        retry: Retry | int | None = None,
        headers: Mapping[str, str] | None = None,
        chat_defaults: ChatParameters | None = None,
    ) -> "AsyncSession":
        """Return a session with other settings that shares this one's connections, limits, hooks and usage.

        The new session needs no closing: it ends with this one.

        Args:
            timeouts: seconds for a whole call, or a `Timeouts`, whose named limits replace this session's.
            retry: the number of retries after the first attempt, or a `Retry`, in place of this session's.
            headers: further headers, beside this session's.
            chat_defaults: further parameters of every chat, beside this session's.

        Raises:
            InvalidInputError: a setting out of range.
        """
        headers, chat_defaults = hide(headers), hidden_defaults(chat_defaults)  # from tracebacks with local variables
        other = copy.copy(self)
        other._timeouts, other._retry = read_timeouts(timeouts, self._timeouts), read_retry(retry, self._retry)
        more = check_headers(headers, "headers")
        other._calls = self._calls.with_options(other._timeouts, other._retry, more)
        other._make_endpoints({**self._chat_defaults, **chat_defaults})
        other._owner = self
        return other

    def _connect(self) -> "Transport":
        from .transport.transport import Transport  # aiohttp costs more to import than all the rest

        return Transport(
            self.base_url,
            self._key,
            limits=self._limits,
            headers=self._headers,
            http=self._http,
            environment=self._environment,
            allow_insecure=self._allow_insecure,
        )

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""
        return self._closed if self._owner is None else self._owner.closed

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the session belongs to, that of the first use; None before."""
        return self._calls.loop

    @property
    def usage(self) -> Usage:
        """Total usage of all finished calls, creates included."""
        return self._calls.usage

    @property
    def timeouts(self) -> Timeouts:
        """How long to wait for each step, as given."""
        return self._timeouts

    @property
    def limits(self) -> Limits:
        """How much to hold, as given."""
        return self._limits

    @property
    def retry(self) -> Retry:
        """When to try again, as given."""
        return self._retry

    @property
    def hooks(self) -> Hooks:
        """The functions that are called on events, as given."""
        return self._hooks

    def notify(self, name: str, make: Callable[[], Any]) -> None:
        """Call the hook of that name, if any, with the event that `make` builds. For the managed objects."""
        self._calls.notifier.notify(name, make)

    def holdings(self) -> dict[str, float]:
        """Count what the calls under way hold, by kind: {} when there are none. For tests that look for leaks."""
        return self._calls.holdings()

    def fingerprint(self, data: bytes) -> str:
        """Return a keyed hash of `data` (64 hex digits), different for each base URL and API key.

        An HMAC-SHA256 under the API key: without the key nobody can compute or test the hash.
        """
        url = self.base_url.encode()
        return hmac.new(self._key.reveal().encode(), b"%d %b %b" % (len(url), url, data), hashlib.sha256).hexdigest()

    async def aclose(self) -> None:
        """Close the session. Readers of open streams get a `StreamInterruptedError` at once; further calls fail.

        A session that `with_options` made closes nothing.
        """
        if self._owner is None:
            await self._calls.aclose()
            self._closed = True

    async def __aenter__(self) -> Self:
        self._calls.transport()  # raises here if the session is closed or belongs to another loop
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncSession {self.base_url} {'closed' if self.closed else 'open'}>"

    def __del__(self) -> None:
        if self._owner is None and not self._closed and self._calls.connected:
            warnings.warn(
                f"{self!r} was never closed: use `async with`, or aclose()", ResourceWarning, stacklevel=2, source=self
            )


def _checked(name: str, value: T | None, default: T) -> T:
    if value is None:
        return default
    if not isinstance(value, type(default)):
        raise InvalidInputError.of(name, value, f"a {type(default).__name__}")
    return value


def _secret(api_key: object) -> Secret:
    return Secret(api_key.strip() if isinstance(api_key, str) else "")


def _check_key(key: Secret) -> None:
    # A header value cannot carry more. The value is not shown: it may be the key.
    if not key.reveal().isprintable() or not key.reveal():
        raise InvalidInputError(
            "api_key must be printable text: pass api_key=… or set CTXCACHE_API_KEY",
            field="api_key",
            allowed="a non-empty string without control characters",
        )


def checked_url(base_url: object) -> str:
    """Return a base URL without a slash at its end.

    Raises:
        InvalidInputError: for any other value; a URL with a password is not shown.
    """
    allowed = "an http or https URL with a host and without user, query or fragment"
    if not isinstance(base_url, str):
        raise InvalidInputError.of("base_url", base_url, allowed)
    if _has_user(base_url):  # and perhaps a password
        raise InvalidInputError(f"base_url must be {allowed}", field="base_url", allowed=allowed)
    url = str(base_url).strip()
    if not _is_base_url(url):
        raise InvalidInputError.of("base_url", url, allowed)
    url = url.rstrip("/")
    if url.endswith(_ENDPOINTS):
        raise InvalidInputError.of("base_url", url, "a URL up to and with the version, without an endpoint's path")
    return url


def _has_user(text: str) -> bool:
    return "@" in text.partition("//")[2].partition("/")[0]


def _is_base_url(text: str) -> bool:
    if "?" in text or "#" in text:
        return False
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def checked_insecure(base_url: str, allow_insecure: object) -> bool:
    """Return `allow_insecure`, checked: False refuses plain http to a public host, where others could read the key."""
    if not isinstance(allow_insecure, bool):
        raise InvalidInputError.of("allow_insecure", allow_insecure, "True or False")
    url = urlsplit(base_url)
    if url.scheme == "http":
        public = is_public(url.hostname or "")
        if public and not allow_insecure:
            raise InvalidInputError(
                f"base_url must be an https URL, got {base_url!r}: over plain http others could read the API key on "
                "its way to a public host (allow_insecure=True sends it all the same)",
                field="base_url",
                value=repr(base_url),
                allowed="an https URL, or an http URL of a host that is not public",
            )
        kind = "public" if public else "private"
        log.debug("base_url %s: the API key is sent unencrypted to a %s host", base_url, kind)
    return allow_insecure
