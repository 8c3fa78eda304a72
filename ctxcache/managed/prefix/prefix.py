"""`Prefix`: a long prompt kept on the model's side, and any number of calls over it at once."""

import json
import time
from collections.abc import AsyncIterable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeVar, Unpack

from ... import codec
from ...client.hooks import RetryEvent
from ...client.resources.parameters import ChatParameters, given, hidden_defaults, hide_headers, refuse_unknown
from ...client.session import AsyncSession
from ...config import UNSET, Retry, Timeouts, Unset, hide
from ...errors import CtxCacheError, InvalidInputError
from ...keywords import refusing, suggest_keywords
from ...log import one_line
from ...models import (
    ChatCompletion,
    Context,
    ContextRequest,
    Message,
    MessageLike,
    ResponseFormatDict,
    StreamOptionsDict,
    ThinkingDict,
    ToolChoiceDict,
    ToolDict,
    Usage,
    read_messages,
)
from ...wire import CHAT_PATH, PreparedChat
from ..calls import ManagedCalls
from ..costs import Cost, Prices
from ..keeper import ContextKeeper
from ..live import DEFAULT_MARGIN
from ..mapping import Map
from ..question import Question, read_question, refuse_own_options
from ..stores import Store
from ..stream import ManagedStream
from .call import PrefixCall, Send
from .renewal import Renewal
from .shared_pause import SharedPause
from .store_access import StoreAccess
from .timing import Timing

__all__ = ["Prefix"]

_STORE: Final = ("get", "put", "touch", "forget", "lease", "release")

_PAUSES: Final = ("pause", "paused")  # stores written for older releases have no such methods

_TIMING: Final = Timing()
_CONCURRENCY: Final = 64  # calls of a map at once

QuestionT = TypeVar("QuestionT")
T = TypeVar("T")


class Prefix(ManagedCalls):
    """A long prompt kept in a `common_prefix` context, which exists whenever a call needs it.

    Nothing is sent before the first use, which creates the context. The context is replaced shortly before its TTL
    ends, or when the service reports it gone; then the call is repeated. Any number of tasks may call at once:
    concurrent first uses create one context; if that fails, each gets the error. Nothing needs to be closed.

    Args:
        session: makes the calls; its `Hooks` are told what happens to the context.
        model: the model's id.
        messages: what every question follows: `Message` objects or mappings; the last one may not be the assistant's.
        ttl: idle time after which the service drops the context: seconds in [3600, 604800] or a timedelta; the
            service's default is 86400. Every use restarts it.
        store: shares the context with other processes, or other `Prefix` objects of the same session settings, model
            and messages (`MemoryStore`, `SQLiteStore`, `RedisStore`); you close it. A `Retry-After` is shared as well,
            by all prefixes of the same session settings and model. A store that fails is reported once, and calls
            continue without it. None: nothing is shared.
        margin: seconds before the end of a context from which it is no longer used; at most a tenth of the ttl.
        is_gone: which errors say that the context is gone; default: `ContextGoneError`. If it raises, that is logged
            and counts as no.
        clock: Unix seconds.
        chat_defaults: parameters of every call that does not give its own, in addition to the session's.

    Raises:
        InvalidInputError: an argument is out of range.
    """

    @suggest_keywords
    def __init__(
        self,
        session: AsyncSession,
        *,
        model: str,
        messages: Iterable[MessageLike],
        ttl: int | timedelta | Unset | None = None,
        store: Store | None = None,
        margin: float = DEFAULT_MARGIN,
        is_gone: Callable[[CtxCacheError], bool] | None = None,
        clock: Callable[[], float] = time.time,
        chat_defaults: ChatParameters | None = None,
        _timing: Timing = _TIMING,
    ) -> None:
        chat_defaults = hidden_defaults(chat_defaults)
        template = ContextRequest(model=model, messages=read_messages(messages), mode="common_prefix", ttl=ttl)
        self._keeper = ContextKeeper(session, template, margin=margin, is_gone=is_gone, clock=clock)
        if store is not None and not all(callable(getattr(store, name, None)) for name in _STORE):
            raise InvalidInputError.of("store", type(store), "a Store, or None")
        refuse_own_options(chat_defaults)
        super().__init__(session, chat_defaults)
        self._model = model
        access = StoreAccess(store, _key(session, template), session.notify, _timing)
        self._renewal = Renewal(self._keeper, access, _timing)
        pausing = store if all(callable(getattr(store, name, None)) for name in _PAUSES) else None
        self._pause = SharedPause(StoreAccess(pausing, _pause_key(session, model), session.notify, _timing), _timing)

    # --- calls

    async def _ask(self, question: Question, options: ChatParameters) -> ChatCompletion:
        return await self._send(self._prepare(read_question(question), options))

    async def _send(self, prepared: PreparedChat) -> ChatCompletion:
        send = partial(self._session.chat.send, prepared)
        call = self._call(prepared, send)
        answer = await call.begin()
        await call.answered(answer.usage)
        return answer

    def _stream(self, question: Question, options: ChatParameters) -> ManagedStream:
        prepared = self._prepare(read_question(question), options, stream=True)
        send = partial(self._session.chat.open_stream, prepared)
        return ManagedStream(self._call(prepared, send))

    def _call(self, prepared: PreparedChat, send: Send[T]) -> PrefixCall[T]:
        return PrefixCall(
            self._keeper,
            self._renewal,
            send,
            pause=self._pause,
            policy=prepared.retry,
            total=prepared.timeouts.total,
        )

    @refusing(refuse_own_options)
    def map(
        self,
        questions: Iterable[QuestionT] | AsyncIterable[QuestionT],
        *,
        concurrency: int | None = _CONCURRENCY,
        ordered: bool | None = False,
        temperature: float | Unset | None = None,
        top_p: float | Unset | None = None,
        n: int | Unset | None = None,
        stop: str | Iterable[str] | Unset | None = None,
        max_tokens: int | Unset | None = None,
        presence_penalty: float | Unset | None = None,
        frequency_penalty: float | Unset | None = None,
        repetition_penalty: float | Unset | None = None,
        tools: Sequence[ToolDict | Mapping[str, Any] | object] | Unset | None = None,
        tool_choice: str | ToolChoiceDict | Mapping[str, Any] | Unset | None = None,
        parallel_tool_calls: bool | Unset | None = None,
        response_format: ResponseFormatDict | Mapping[str, Any] | Unset | None = None,
        thinking: ThinkingDict | Mapping[str, Any] | Unset | None = None,
        stream_options: StreamOptionsDict | Mapping[str, Any] | Unset | None = None,
        user: str | Unset | None = None,
        logprobs: bool | Unset | None = None,
        top_logprobs: int | Unset | None = None,
        logit_bias: Mapping[str, float] | Unset | None = None,
        service_tier: str | Unset | None = None,
        repeatable: bool | Unset | None = None,
        serialize: bool | Unset | None = None,
        extra_headers: Mapping[str, str] | Unset | None = None,
        extra_body: Mapping[str, Any] | Unset | None = None,
        timeouts: Timeouts | float | Unset | None = None,
        retry: Retry | int | Unset | None = None,
    ) -> Map[QuestionT]:
        """Ask many questions over the prefix: iterate the result for one `Answer` a question, success or error.

        Args:
            questions: an iterable or async iterable of questions as in `ask`, read no faster than they are asked.
            concurrency: upper limit of concurrent calls; the actual number follows the service's rate limit.
            ordered: deliver the answers in the order of the questions, not as they complete.
            temperature: randomness, in [0, 2].
            top_p: the share of the probability mass to sample from, in [0, 1].
            n: how many replies, from 1 up.
            stop: a string, or up to 4; generation stops before the first match.
            max_tokens: the most tokens of a reply, from 1 up.
            presence_penalty: in [-2, 2]; positive values favour new topics.
            frequency_penalty: in [-2, 2]; positive values make repetition rarer.
            repetition_penalty: above 0; values above 1 make repetition rarer.
            tools: functions that the model may call: see `ToolDict`; objects with such fields do, too.
            tool_choice: `none`, `auto`, `required`, or a mapping that names a function.
            parallel_tool_calls: whether the model may ask for several calls at once.
            response_format: `{"type": "json_object"}`, or a JSON schema: see `ResponseFormatDict`.
            thinking: `{"type": "enabled"}`, `disabled` or `auto`, for models that reason.
            stream_options: `{"include_usage": True}` asks a stream for its usage.
            user: your own id of the end user.
            logprobs: whether to return log probabilities.
            top_logprobs: for how many candidates at each place, 0 to 20.
            logit_bias: token id to bias in [-100, 100].
            service_tier: the tier to be served by: `auto`, `default`, …
            repeatable: whether lost replies are retried. Default: yes.
            serialize: whether to wait for this session's other calls on the context. Default: no.
            extra_headers: further headers of this call.
            extra_body: further body fields, sent unchanged, in place of a parameter of the same name.
            timeouts: seconds for the whole call, or a `Timeouts`, whose named limits replace the session's.
            retry: the number of retries of a question, or a `Retry`, for the map as a whole: see `Map`.

        Raises:
            InvalidInputError: an argument is out of range.
        """
        extra_headers = hide(extra_headers)  # tracebacks may show local variables
        return self._map(
            questions, _CONCURRENCY if concurrency is None else concurrency, bool(ordered), given(locals())
        )

    def _map(
        self,
        questions: Iterable[QuestionT] | AsyncIterable[QuestionT],
        concurrency: int,
        ordered: bool,
        options: ChatParameters,
    ) -> Map[QuestionT]:
        prepared = self._prepare((), options)  # the questions are read when they are asked

        async def ask(question: QuestionT, *, retry: Retry) -> ChatCompletion:
            return await self._send(prepared.asking(read_question(question), retry=retry))

        return Map(
            ask,
            questions,
            concurrency=concurrency,
            ordered=ordered,
            retry=prepared.retry,
            repeatable=prepared.repeatable,
            on_retry=self._tell_of_retry,
            paused=lambda: self.paused,
        )

    def check(self, **options: Unpack[ChatParameters]) -> None:
        """Check the options of a call without sending.

        Args:
            **options: as in `ask`.

        Raises:
            InvalidInputError: an argument is out of range.
        """
        hide_headers(options)
        refuse_own_options(options)
        refuse_unknown("Prefix.check()", options)
        self._prepare((), options)

    def _prepare(self, messages: tuple[Message, ...], options: ChatParameters, *, stream: bool = False) -> PreparedChat:
        refuse_own_options(options)
        if options.get("repeatable", self._session.chat.defaults.get("repeatable", UNSET)) is UNSET:
            options["repeatable"] = True
        prepared = self._session.chat.prepare(model=self._model, stream=stream, **options)
        return prepared.asking(messages) if messages else prepared

    def _tell_of_retry(self, error: CtxCacheError, attempts: int, delay: float) -> None:
        live = self._renewal.live
        self._session.notify(
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
        """Find or create the context now, so that the first question does not wait for that.

        Returns:
            the context; if found in the store, only `id`, `ttl`, `model` and `mode` are known.

        Raises:
            CtxCacheError: the create failed.
        """
        live = await self._renewal.current()
        await self._renewal.settled()
        return live.context

    # --- the context, and the books

    @property
    def model(self) -> str:
        """The model's id."""
        return self._model

    @property
    def context(self) -> Context | None:
        """The context; None before the first use, after its expiry, and after the service reported it gone.

        If found in the store, only `id`, `ttl`, `model` and `mode` are known.
        """
        live = self._renewal.live
        return None if live is None else live.context

    @property
    def renewing(self) -> bool:
        """Whether a context is being found or created now, perhaps for a caller that has left."""
        return self._renewal.under_way

    @property
    def expires_at(self) -> float | None:
        """When the context will be gone if not used before, in Unix seconds; None without a context."""
        live = self._renewal.live
        return None if live is None else live.expires_at

    @property
    def paused(self) -> float:
        """Seconds for which the service asked all processes to wait, with a 429; 0 without such a pause, or a store.

        A pause of another process is known within some tenths of a second, while calls are made.
        """
        return self._pause.seconds

    @property
    def usage(self) -> Usage:
        """Total usage of creates and calls, over all contexts this object had."""
        return self._keeper.ledger.usage

    def cost(self, prices: Prices) -> Cost:
        """Return the cost so far, storage included, and the cost of the same calls without a context."""
        return self._keeper.ledger.cost(prices, self._keeper.clock())

    def __repr__(self) -> str:
        if not hasattr(self, "_renewal"):
            return "<Prefix that was not made>"
        context = self.context
        return f"<Prefix {self._model} {'without a context' if context is None else one_line(context.id)}>"


def _key(session: AsyncSession, template: ContextRequest) -> str:
    """Return the context's key in stores: a keyed hash of the account, the model and the messages."""
    # The None stands for the truncation strategy, which a prefix has not.
    identity = json.loads(codec.encode([template.model, template.mode, template.messages, None]))
    return session.fingerprint(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode())


def _pause_key(session: AsyncSession, model: str) -> str:
    """Return the key of a pause in stores: a keyed hash of the account and the model, which rate limits are for."""
    return session.fingerprint(json.dumps(["pause", model]).encode())
