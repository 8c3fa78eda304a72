"""One server of OpenAI's API: the session that calls it, what it is, and whether it is well."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import aiohttp

from .... import codec
from ....client.session import AsyncSession, checked_insecure, checked_url
from ....client.stream import ChatStream
from ....client.transport.failures import is_local
from ....config import Limits, Secret, Timeouts
from ....errors import APIConnectionError, CtxCacheError, InvalidInputError, ProtocolError
from ....hosts import proxy_for
from ....models import Message
from .routing import Breaker

__all__ = ["Server"]

_log: Final = logging.getLogger("ctxcache.gateway")
_UNREACHABLE: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
_MOST_BYTES: Final = 4 * 1024 * 1024  # of an answer to a probe; a router may list thousands of models
_NO_KEY: Final = "none"
_LIMITS: Final = Limits(connections=0)
_NO_KEEPALIVE: Final = Limits(connections=0, keepalive=0)  # llama.cpp promises to keep a connection, and closes it
# Kind, path at the root of the server, and a field that no other kind has in the answer. vLLM's path is the vaguest.
_KIND_FIELDS: Final = (
    ("llama.cpp", "/props", "default_generation_settings"),
    ("sglang", "/get_server_info", "model_path"),
    ("ollama", "/api/version", "version"),
    ("vllm", "/version", "version"),
)


class Server:
    """A server.

    Args:
        url: the base URL, up to and with the version.
        key: the key to send; None where the server wants none: the session for chats needs a word, and says `none`.
        kind: one of `KINDS`; None to find out.
        timeouts: the limits of a call.
        probing: the most seconds of a probe.
        clock: seconds that only go forward.

    Attributes:
        url: the base URL, without a slash at its end.
        breaker: whether the server is called.

    Raises:
        InvalidInputError: for a URL that is none, or a key that others could read on the way.
    """

    def __init__(
        self,
        url: str,
        key: Secret | None,
        *,
        kind: str | None,
        timeouts: Timeouts,
        probing: float,
        clock: Callable[[], float],
    ) -> None:
        self._key: Final = key
        self._kind = kind
        self._timeouts: Final = timeouts
        self._probing: Final = aiohttp.ClientTimeout(total=probing)
        self.breaker: Final = Breaker(clock)
        self._finding: asyncio.Task[str | None] | None = None
        self._session: AsyncSession | None = None
        self.url: Final = _base_url(url, allow_insecure=key is None)

    def __repr__(self) -> str:
        return f"<Server {self.url} {self._kind or 'of unknown kind'}>"

    @property
    def session(self) -> AsyncSession:
        """The session for chats, made at the first use and after `aclose`."""
        if self._session is None:
            self._session = AsyncSession(
                _NO_KEY if self._key is None else self._key.reveal(),
                self.url,
                timeouts=self._timeouts,
                limits=_NO_KEEPALIVE if self._kind == "llama.cpp" else _LIMITS,
                retry=0,
                allow_insecure=self._key is None,
            )
        return self._session

    async def aclose(self) -> None:
        """Cut every connection; a later call begins anew."""
        if self._finding is not None and not self._finding.done():
            self._finding.cancel()
            await asyncio.wait([self._finding])
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    # --- chats

    async def open(self, model: str, messages: Iterable[Message], parameters: Mapping[str, Any]) -> ChatStream:
        """Send a chat and return the stream of its answer, whose head has come.

        Raises:
            CtxCacheError: any of the family.
        """
        chat = self.session.chat
        # Nothing is stored there: a repeat is harmless, and so a lost answer is no doubt.
        return await chat.open_alone(
            chat.prepare(model=model, messages=messages, stream=True, repeatable=True, **parameters)
        )

    def note(self, failure: CtxCacheError | None) -> None:
        """Note how a call or a probe ended: None for an answer, of whatever status."""
        if failure is None:
            if self.breaker.succeed():
                _log.info("the upstream %s is back", self.url)
        elif self.breaker.fail():
            _log.warning("the upstream %s is left alone for a while: %s", self.url, failure)

    # --- probes

    async def kind(self, http: aiohttp.ClientSession) -> str:
        """Return the kind of the server, found out once; `openai` for any other, or while the server is down."""
        if self._kind is None:
            if self._finding is None or self._finding.done():
                self._finding = asyncio.create_task(self._find_kind(http))
            self._kind = await asyncio.shield(self._finding)  # shared: a server that hangs holds up all by one wait
        return self._kind or "openai"

    async def _find_kind(self, http: aiohttp.ClientSession) -> str | None:
        for kind, path, field in _KIND_FIELDS:
            try:
                status, body = await self._get(http, self._root + path)
            except _UNREACHABLE:
                return None
            if status == 200 and field in _fields(body):
                return kind
        return "openai"

    async def probe(self, http: aiohttp.ClientSession) -> APIConnectionError | None:
        """Ask whether the server is well; return the problem. Any answer that is no failure says yes."""
        kind = await self.kind(http)
        url = {"openai": f"{self.url}/models", "ollama": f"{self._root}/api/version"}.get(kind, f"{self._root}/health")
        try:
            status, _ = await self._get(http, url)
        except _UNREACHABLE as error:
            return APIConnectionError(f"the probe failed: {_problem(error)}", local=is_local(error))
        return None if status < 500 else APIConnectionError(f"the probe failed: status {status}")

    async def models(self, http: aiohttp.ClientSession) -> dict[str, int | None]:
        """Return the ids of the models with their windows in tokens, None where the server does not say.

        Raises:
            OSError: the server gave no list.
        """
        try:
            status, body = await self._get(http, f"{self.url}/models")
        except _UNREACHABLE as error:
            problem = _problem(error)
        else:
            listed = _fields(body).get("data")
            if status == 200 and isinstance(listed, list):
                models = [model for model in listed if isinstance(model, Mapping)]
                return {model["id"]: _window(model) for model in models if isinstance(model.get("id"), str)}
            problem = f"the status is {status}" if status != 200 else "the answer is no list of models"
        raise OSError(problem)

    @property
    def _root(self) -> str:
        return self.url.removesuffix("/v1")

    async def _get(self, http: aiohttp.ClientSession, url: str) -> tuple[int, bytes]:
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key.reveal()}"}
        async with http.get(
            url,
            headers=headers,
            timeout=self._probing,
            allow_redirects=False,  # the key would travel along
            proxy=proxy_for(url, os.environ),
        ) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > _MOST_BYTES:
                    raise ValueError(f"the answer has more than {_MOST_BYTES:,} bytes")
            return response.status, bytes(body)


def _base_url(url: str, *, allow_insecure: bool) -> str:
    try:
        found = checked_url(url)
        checked_insecure(found, allow_insecure)
    except InvalidInputError as error:
        wrong = error
    else:
        return found
    raise InvalidInputError(wrong.message.replace("base_url", "upstream", 1), field="upstreams", allowed=wrong.allowed)


def _problem(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        fields = codec.decode_json(body)
    except ProtocolError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _window(model: Mapping[str, Any]) -> int | None:
    """Return the window of a model as vLLM and SGLang tell it."""
    window = model.get("max_model_len")
    return window if isinstance(window, int) and window > 1 else None
