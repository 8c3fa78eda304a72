"""`Prefix`: a long prompt kept on the model's side, and any number of calls over it at once."""

import json
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar, Unpack, cast

from .. import codec
from ..config import UNSET, Retry, Timeouts, Unset
from ..errors import ContextGoneError, CtxCacheError, InvalidInputError
from ..hooks import RetryEvent
from ..models import ChatCompletion, Context, ContextRequest, Message, MessageLike, Usage
from ..resources.chat import ChatParameters
from ..session import AsyncSession
from ..wire import CHAT_PATH
from .costs import Cost, Ledger, Prices
from .expiry import DEFAULT_MARGIN, check_margin
from .mapping import Map
from .prefix_calls import PrefixCalls
from .question import Question, read_question
from .renewal import Renewal
from .sharing import Sharing
from .stores import Store
from .streams import ManagedStream

__all__ = ["Prefix"]

_MODE: Final = "common_prefix"
_STORE: Final = ("get", "put", "touch", "forget", "lease", "release")
_OWN: Final = ("context_id", "model", "messages", "stream")

QuestionT = TypeVar("QuestionT")


def _says_gone(error: CtxCacheError) -> bool:
    return isinstance(error, ContextGoneError)


class Prefix:
    """A prompt that many questions begin with, as a `common_prefix` context that is there when it is needed.

    Nothing is sent before the first use, which creates the context. It is created again when its time is up, and when
    the service says that it is gone; then the call is repeated, once. Any number of tasks may use it at once: those who
    need a context at the same time make one between them, and where that fails each gets the error. Nothing need be
    closed.

    Args:
        session: who makes the calls; its `Hooks` are told what happens to the context.
        model: the model's id.
        messages: what every question follows: `Message` objects or mappings; the last one may not be the assistant's.
        ttl: idle time after which the service drops the context: seconds in [3600, 604800] or a timedelta; the
            service's default is 86400. Every use starts it anew.
        store: shares the context with other processes, or other `Prefix` objects of the same session settings, model
            and messages (`MemoryStore`, `SQLiteStore`, `RedisStore`); you close it. A store that fails is reported
            once, and done without. None: this object alone knows its context.
        margin: seconds before its end from which a context is no longer used; never more than a tenth of its ttl.
        is_gone: which errors say that the context is gone; default: `ContextGoneError`.
        clock: Unix seconds.

    Raises:
        InvalidInputError: for an argument out of its range.
    """

    def __init__(
        self,
        session: AsyncSession,
        *,
        model: str,
        messages: Iterable[MessageLike],
        ttl: int | timedelta | Unset = UNSET,
        store: Store | None = None,
        margin: float = DEFAULT_MARGIN,
        is_gone: Callable[[CtxCacheError], bool] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(session, AsyncSession):
            raise InvalidInputError.of("session", type(session), "an AsyncSession")  # it may be the key
        is_gone = _says_gone if is_gone is None else is_gone
        for name, function in (("is_gone", is_gone), ("clock", clock)):
            if not callable(function):
                raise InvalidInputError.of(name, function, "a function")
        if store is not None and not all(callable(getattr(store, name, None)) for name in _STORE):
            raise InvalidInputError.of("store", type(store), "a Store, or None")
        asked = ContextRequest(model=model, messages=messages, mode=_MODE, ttl=ttl)
        self._session = session
        self._asked = asked
        self._clock = clock
        self._ledger = Ledger()
        self._renewal = Renewal(
            self._create,
            model=model,
            mode=_MODE,
            sharing=Sharing(store, _key(session, asked), session.hooks, clock),
            ledger=self._ledger,
            hooks=session.hooks,
            clock=clock,
            margin=check_margin(margin),
            ttl=None if asked.ttl is UNSET else asked.ttl,  # type: ignore[arg-type]  # seconds by now
        )
        self._calls = PrefixCalls(
            session, model, renewal=self._renewal, is_gone=is_gone, ledger=self._ledger, clock=clock
        )

    async def _create(self) -> Context:
        asked: Any = self._asked  # checked, and in its one form
        return await self._session.context.create(model=asked.model, messages=asked.messages, mode=_MODE, ttl=asked.ttl)

    # --- calls

    async def ask(self, question: Question, **options: Unpack[ChatParameters]) -> ChatCompletion:
        """Ask one question over the prefix, and wait for the whole answer.

        Args:
            question: a string is a user message; a `Message` or a mapping is one message; a list of them is sent as it
                is.
            **options: see `ChatParameters`; `repeatable` is True here unless you say otherwise: a lost reply is asked
                for again.

        Raises:
            InvalidInputError: for an argument out of its range; nothing was sent.
            CtxCacheError: any other of the family, from creating the context or from the call.
        """
        messages, checked = self._checked(question, options)
        if self._renewal.live is None:
            self._calls.start("-", messages, checked)  # checked before a context is made for it
        return await self._calls.ask(messages, checked)

    def stream(self, question: Question, **options: Unpack[ChatParameters]) -> ManagedStream:
        """Ask one question over the prefix, and stream the answer: `async with` the result, or iterate it straight.

        Nothing is sent before that. Where the context turns out to be gone before the first chunk, the call is repeated
        on a new one; after it, the error is raised, and the next call creates a new one. The stream is asked for its
        usage, unless `stream_options` says otherwise.

        Args:
            question: as in `ask`.
            **options: as in `ask`.

        Raises:
            InvalidInputError: for an argument out of its range.
        """
        messages, checked = self._checked(question, {"stream_options": {"include_usage": True}, **options})
        self._calls.start("-", messages, checked)
        return self._calls.stream(messages, checked)

    def map(
        self,
        questions: Iterable[QuestionT] | AsyncIterable[QuestionT],
        *,
        concurrency: int = 64,
        ordered: bool = False,
        **options: Unpack[ChatParameters],
    ) -> Map[QuestionT]:
        """Ask many questions over the prefix: iterate the result for an `Answer` to each, an error being one as well.

        Args:
            questions: an iterable or async iterable of questions as in `ask`, read as they can be asked.
            concurrency: the most calls at once; how many there are, depends on what the service takes.
            ordered: deliver the answers in the order of the questions, not as they complete.
            **options: as in `ask`, for all of them.

        Raises:
            InvalidInputError: for an argument out of its range.
        """
        own: dict[str, Any] = dict(options)
        policy = own.pop("retry", None)
        sample, checked = self._checked("", own)  # each question is checked when it is asked
        self._calls.start("-", sample, checked)

        async def ask(question: QuestionT, *, retry: Retry) -> ChatCompletion:
            return await self.ask(cast("Question", question), **checked, retry=retry)

        return Map(
            ask,
            questions,
            concurrency=concurrency,
            ordered=ordered,
            retry=self._session.retry if policy is None else policy,
            on_retry=self._tell_of_retry,
        )

    def _tell_of_retry(self, error: CtxCacheError, attempts: int, delay: float) -> None:
        live = self._renewal.live
        self._session.hooks.fire(
            "on_retry",
            lambda: RetryEvent(
                path=CHAT_PATH,
                context_id=None if live is None else live.context.id,
                client_request_id=error.client_request_id or "",
                attempt=attempts,
                delay=delay,
                error=error,
            ),
        )

    async def warm(self) -> Context:
        """Make sure that there is a context now, so that the first question does not wait for it.

        Returns:
            the context; of one that was found in the store only `id`, `ttl`, `model` and `mode` are known.

        Raises:
            CtxCacheError: it could not be created.
        """
        return (await self._renewal.current()).context

    def _checked(self, question: object, options: Mapping[str, Any]) -> tuple[tuple[Message, ...], dict[str, Any]]:
        """Return the question as messages, and the options in a form that can be sent more than once."""
        inside = options.get("extra_body")
        for name in _OWN:
            if name in options:
                raise InvalidInputError.of(name, type(options[name]), "nothing: the Prefix itself says it")
        for name in ("context_id", "stream"):  # what is in extra_body wins over what is sent otherwise
            if isinstance(inside, Mapping) and name in inside:
                allowed = "nothing: the Prefix itself says it"
                raise InvalidInputError.of(f"extra_body[{name!r}]", type(inside[name]), allowed)
        checked = {"repeatable": True, **options}
        stop = checked.get("stop", UNSET)
        if isinstance(stop, Iterable) and not isinstance(stop, str | bytes | Mapping):
            checked["stop"] = tuple(stop)  # an iterator could be read only once
        for name, kind in (("timeouts", Timeouts), ("retry", Retry)):
            if checked.get(name) is not None and not isinstance(checked[name], kind):
                raise InvalidInputError.of(name, checked[name], f"a {kind.__name__}, or None for the session's")
        return read_question(question, self._asked.model), checked

    # --- the context, and the books

    @property
    def context(self) -> Context | None:
        """The context; None before the first use, when its time is up, and when it was found gone.

        Of one that was found in the store only `id`, `ttl`, `model` and `mode` are known.
        """
        live = self._renewal.live
        return None if live is None else live.context

    @property
    def expires_at(self) -> float | None:
        """When the context will be gone if it is not used before, in Unix seconds; None where there is none."""
        live = self._renewal.live
        return None if live is None else live.expiry.expires_at

    @property
    def usage(self) -> Usage:
        """What was counted so far, creates and calls, over all contexts this object had."""
        return self._ledger.usage

    def cost(self, prices: Prices) -> Cost:
        """Turn what was counted so far into money, storage included, and compare it with calls without a context."""
        return self._ledger.cost(prices, self._clock())

    def __repr__(self) -> str:
        context = self.context
        return f"<Prefix {self._asked.model} {'without a context' if context is None else context.id}>"


def _key(session: AsyncSession, asked: ContextRequest) -> str:
    """Return what the context has for a name in stores: it tells all that matters apart, and nothing of it."""
    what = json.loads(codec.encode([asked.model, asked.mode, asked.messages, None]))  # no truncation strategy
    return session.fingerprint(json.dumps(what, sort_keys=True, separators=(",", ":")).encode())
