"""`UpstreamEngine`: a prompt goes to the server that has its context, or to another where nothing was answered."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

import aiohttp

from .... import checks
from ....config import Secret, Timeouts, hide, read_timeouts
from ....errors import APIConnectionError, APIStatusError, CtxCacheError, InvalidInputError
from ....models import ChatRequest
from ...rules.pieces import Piece
from ..protocol import NewContext, Prompt
from . import failures
from .asking import KINDS, chat_parameters
from .reading import read_chunks
from .routing import ranked
from .server import Server

__all__ = ["UpstreamEngine"]

_log: Final = logging.getLogger("ctxcache.gateway")
_TIMEOUTS: Final = Timeouts(connect=5.0)
_PROBE_SECONDS: Final = 5.0
# The codes of refusals that the next chat would meet, too: a create fails with them.
_LASTING_REFUSALS: Final = ("OutofContextError", "InvalidEndpointOrModel.NotFound")


class UpstreamEngine:
    """Answers come from servers of OpenAI's API: vLLM, SGLang, llama.cpp, Ollama, LMDeploy, or a router before them.

    A context stays with one server, whose cache then has it, and moves when that server fails: a server that cannot be
    reached three times in a row is left alone, and probed until it is back. A call for which no byte of an answer came
    goes to the next server. Tools and all further fields of a request are passed on; the usage is the server's own.

    Args:
        upstreams: the base URL of each server, version included: `http://model-1:8000/v1`.
        api_key: the key for the servers, printable ASCII without spaces; None where servers want no key: chats then
            carry the word `none` in place of a key. Clients never see this key, and theirs is never sent on.
        model_names: the servers' name of a model, by the gateway's; any other name is sent as it is.
        kind: `vllm`, `sglang`, `llama.cpp`, `ollama` or `openai`; `auto` asks each server once. By kind `cache_salt`
            keeps the cached prompts of different keys apart (vLLM, SGLang), and `thinking` is translated. A router
            need not tell the kind of the servers behind: name it.
        warm: whether a create lets the server compute the context, with one token, so that the first question is fast.
        timeouts: the limits of a call to a server; a number limits the whole call.
        probe_seconds: the time between two probes of each server, and the longest wait for a probe.
        clock, sleep: for tests: monotonic seconds, and a wait of so many.

    Raises:
        InvalidInputError: for an argument out of range.
    """

    all_replies: ClassVar[bool] = True
    batches: ClassVar[bool] = True

    def __init__(
        self,
        upstreams: str | Iterable[str],
        *,
        api_key: str | None = None,
        model_names: Mapping[str, str] | None = None,
        kind: str = "auto",
        warm: bool = True,
        timeouts: Timeouts | float | None = None,
        probe_seconds: float = _PROBE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        api_key = hide(api_key)  # tracebacks may show local variables
        key = None if api_key is None else Secret(checks.api_key(api_key))
        found = checks.one_of("kind", kind, ("auto", *KINDS))
        self._probe_seconds: Final = checks.number("probe_seconds", probe_seconds, 0.001)
        self._servers: Final = tuple(
            Server(
                url,
                key,
                kind=None if found == "auto" else found,
                timeouts=read_timeouts(timeouts, _TIMEOUTS),
                probing=self._probe_seconds,
                clock=clock,
            )
            for url in _urls(upstreams)
        )
        self._urls: Final = [server.url for server in self._servers]
        self._names: Final = _names(model_names)
        self._warm: Final = checks.flag("warm", warm)
        self._sleep: Final = sleep
        self._http: aiohttp.ClientSession | None = None
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"UpstreamEngine({self._urls!r})"

    # --- answers

    async def generate(self, prompt: Prompt) -> AsyncIterator[list[Piece]]:
        """Send the prompt on, and pass on the answer, with all that one read of the socket brought at once."""
        request = prompt.request
        failure: CtxCacheError | None = None
        last: Server | None = None
        for server in self._candidates(request.context_id):
            if server is last and failure is not None and not failures.hung_up(failure):
                continue
            last = server
            parameters = chat_parameters(prompt, await server.kind(self._prober))
            begun = False
            try:
                async with await server.open(self._name(request.model), prompt.messages, parameters) as stream:
                    async for chunk in stream:
                        begun = True
                        yield read_chunks([chunk, *stream.take_ready()])
                answer = stream.completion()
                failures.check_finished(answer)
            except CtxCacheError as error:
                failure = error
            else:
                _note(server, None)
                failures.check_replies(len(answer.choices), prompt.replies)
                return
            _note(server, failure)
            if begun or not failures.may_go_elsewhere(failure):
                break
        raise self._refusal(failure, request.model)

    def _candidates(self, context_id: str) -> Iterator[Server]:
        """Yield the servers to try, the context's own first; each twice, since it may only have hung up."""
        for place in ranked(context_id, self._urls):
            server = self._servers[place]
            if server.breaker.allows():
                yield server
                if server.breaker.closed:
                    yield server

    def _name(self, model: str) -> str:
        return self._names.get(model, model)

    def _refusal(self, failure: CtxCacheError | None, model: str) -> APIStatusError:
        """Return the error for the client, of the last failure; None: no server was asked."""
        if failure is not None:
            return failures.as_refusal(failure, model)
        return failures.unreachable(math.ceil(min(server.breaker.seconds_left for server in self._servers)) or 1)

    async def prepare(self, context: NewContext) -> None:
        """Let the server compute the context, with one token."""
        if not self._warm:
            return
        request = ChatRequest(context_id=context.id, model=context.model, messages=context.messages, max_tokens=1)
        prompt = Prompt(
            request=request,
            context=(),
            context_tokens=0,
            question=context.messages,
            max_tokens=1,
            client=context.client,
        )
        try:
            async for _ in self.generate(prompt):
                pass
        except APIStatusError as refusal:
            if refusal.code in _LASTING_REFUSALS:
                raise
            # A template may want a question after the system's message; a server may be back before the first chat.
            _log.info("the context %s stays cold: %s", context.id, refusal)

    # --- the servers

    async def start(self) -> None:
        """Begin to probe the servers."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stop probing, and cut every connection."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        for server in self._servers:
            await server.aclose()
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def models(self) -> dict[str, int | None]:
        """Return the ids of the servers' models with their windows in tokens, None where the server does not say.

        Raises:
            APIConnectionError: no server gave a list.
        """
        problems = []
        for server in self._servers:
            try:
                return await server.models(self._prober)
            except OSError as error:
                problems.append(f"{server.url}: {error}")
        raise APIConnectionError(f"cannot list the models of {'; '.join(problems)}")

    async def _watch(self) -> None:
        while True:
            await self._sleep(self._probe_seconds)
            await asyncio.gather(*(self._probe(server) for server in self._servers))

    async def _probe(self, server: Server) -> None:
        try:
            _note(server, await server.probe(self._prober))
        except Exception:  # else this were the last probe of any server
            _log.exception("the upstream %s cannot be probed", server.url)

    @property
    def _prober(self) -> aiohttp.ClientSession:
        """The connections for everything but chats, which the SDK's client makes."""
        if self._http is None:
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._http


def _note(server: Server, failure: CtxCacheError | None) -> None:
    """Note how a call or a probe ended, where that says anything of the server; None for an answer."""
    if failure is None or failures.shows_health(failure):
        server.note(None)
    elif failures.blames_server(failure):
        server.note(failure)


def _urls(upstreams: object) -> list[str]:
    urls = [upstreams] if isinstance(upstreams, str) else list(upstreams) if isinstance(upstreams, Iterable) else []
    allowed = "a URL, or a list of different URLs"
    if not urls or not all(isinstance(url, str) for url in urls):
        raise InvalidInputError.of("upstreams", upstreams, allowed)
    for url in urls:
        if [other.rstrip("/") for other in urls].count(url.rstrip("/")) > 1:
            raise InvalidInputError.of("upstreams", url, allowed)
    return urls


def _names(model_names: object) -> dict[str, str]:
    if model_names is None:
        return {}
    if not isinstance(model_names, Mapping):
        raise InvalidInputError.of("model_names", model_names, "a mapping of names to names")
    return {
        checks.text("model_names", name): checks.text(f"model_names[{name!r}]", theirs)
        for name, theirs in model_names.items()
    }
