"""`PrefixAsker`: answers batches of questions about one cached prompt, in the workers of a cluster."""

import asyncio
import hashlib
import pickle
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final, Unpack, cast

from .. import checks
from ..client.resources.parameters import ChatParameters, hide_headers
from ..client.session import AsyncSession
from ..config import DEFAULT_BASE_URL, Unset
from ..errors import InvalidInputError, SessionError
from ..keywords import unknown_keyword
from ..managed import Prefix
from ..models import MessageLike, read_messages
from ..response_head import is_secret_name
from .columns import add_answers, read_questions
from .store_url import check_store_url
from .worker import Settings, background_loop, line_for

__all__ = ["PrefixAsker"]

_OWN: Final = ("model", "messages", "ttl", "store", "base_url", "concurrency", "question", "output_prefix")


class PrefixAsker:
    """Answers batches of questions about one long prompt: `map_batches` of Ray Data, tasks of Dask, any other engine.

    Holds settings only, so it can be pickled. The first batch in a worker opens a session; all later batches in the
    same process and event loop share the session, the context and the rate limit found. A session is closed when the
    worker's event loop, or the process, ends.

    The API key is read from the worker's environment, `CTXCACHE_API_KEY`, and never passed.

    A batch is a mapping of columns (lists, numpy arrays), a pandas DataFrame, a pyarrow Table, or a list of rows. The
    result has the same form, all columns of the batch, and the columns `text`, `error`, `finish_reason`, `request_id`
    (strings), `prompt_tokens`, `completion_tokens` and `cached_tokens` (whole numbers). A failed question has its error
    (`RateLimitError: …`) in `error` and None elsewhere; `error` is None for an answer.

    Args:
        model: the model's id.
        messages: stand before every question, as in `Prefix`.
        ttl: idle seconds after which the service drops the context, in [3600, 604800], or a timedelta.
        store: how workers share the context: `sqlite:///PATH` for the processes of one machine, `redis://HOST:PORT` or
            `rediss://` for many machines. A URL with a password belongs in the worker's environment,
            `CTXCACHE_STORE`, which is read for None. Without a store each worker creates a context of its own.
        base_url: the gateway's URL. Default: the worker's environment, `CTXCACHE_BASE_URL`, as in `AsyncSession`.
        concurrency: upper limit of concurrent calls in each worker; the actual number follows the service's rate limit.
        question: the column with the questions: strings, messages, or lists of messages.
        output_prefix: goes before the names of the columns added, as in `answer_text`.
        **chat: parameters of every call, see `ChatParameters`.

    Raises:
        InvalidInputError: an argument is out of range, cannot be pickled, is `api_key`, or is a header whose name
            suggests a secret.
    """

    # Tells Dask, which looks no further than functions, that a call gives a coroutine for the worker's event loop.
    __tornado_coroutine__: ClassVar[bool] = True

    def __init__(
        self,
        *,
        model: str,
        messages: Iterable[MessageLike],
        ttl: int | timedelta | Unset | None = None,
        store: str | None = None,
        base_url: str | None = None,
        concurrency: int = 64,
        question: str = "question",
        output_prefix: str = "",
        **chat: Unpack[ChatParameters],
    ) -> None:
        _check_names(cast("dict[str, object]", chat))
        hide_headers(chat)
        _check_headers(chat.get("extra_headers"))
        check_store_url(store)
        self._question = checks.string("question", question)
        self._output_prefix = checks.string("output_prefix", output_prefix)
        self._settings = Settings(model, read_messages(messages), ttl, store, base_url, concurrency, chat)
        _check(self._settings)
        self._key = _key(self._settings)

    def __repr__(self) -> str:
        made = hasattr(self, "_settings")
        return f"<PrefixAsker {self._settings.model if made else 'that was not made'}>"

    async def __call__(self, batch: Any) -> Any:
        """Ask the questions of a batch; return the batch with the answers. A failed question is no exception.

        If the caller is cancelled, questions that were not asked yet are dropped.

        Raises:
            InvalidInputError: the batch has another form, lacks the column of the questions or has a column of the
                answers; the environment has no key; the package of the store is not installed.
            SessionError: the worker ended meanwhile.
        """
        batch, questions = read_questions(batch, self._question, self._output_prefix)
        answers = await line_for(self._key, self._settings).ask(questions) if questions else []
        return add_answers(batch, answers, self._output_prefix)

    def run(self, batch: Any) -> Any:
        """Do the same in a thread without an event loop, as for Dask's `map_partitions`; block until all is answered.

        All threads of a process share a session, in an event loop of its own.

        Raises:
            InvalidInputError: as above.
            SessionError: an event loop runs in this thread; or as above.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise SessionError("run() would block the running event loop: await the PrefixAsker itself")
        answering = asyncio.run_coroutine_threadsafe(self(batch), background_loop())
        try:
            return answering.result()
        except BaseException:
            answering.cancel()
            raise


def _check_names(chat: dict[str, object]) -> None:
    """Refuse names that no parameter has; `chat` is emptied first, since tracebacks may show local variables."""
    names = (*_OWN, *ChatParameters.__annotations__)
    unknown = [name for name in chat if name not in names]
    if unknown:
        chat.clear()
    if "api_key" in unknown:
        raise InvalidInputError(
            "api_key must be left out, since arguments are pickled: set CTXCACHE_API_KEY in the environment of the "
            "workers",
            field="api_key",
            allowed="left out",
        )
    for name in unknown:
        raise TypeError(unknown_keyword("PrefixAsker()", name, names))


def _check_headers(headers: object) -> None:
    """Refuse headers that hold a secret, judged by the name."""
    for name in headers if isinstance(headers, Mapping) else ():
        if isinstance(name, str) and is_secret_name(name):
            raise InvalidInputError(
                f"extra_headers must have no secrets, since arguments are pickled, got the header {name!r}",
                field="extra_headers",
                allowed="headers without secrets",
            )


def _check(settings: Settings) -> None:
    """Refuse wrong settings in the driver, as each worker would. Nothing is sent."""
    session = AsyncSession("none", settings.base_url or DEFAULT_BASE_URL)
    prefix = Prefix(session, model=settings.model, messages=settings.messages, ttl=settings.ttl)
    prefix.map((), concurrency=settings.concurrency, **settings.chat)


def _key(settings: Settings) -> str:
    """Return the name under which workers know the copies of an asker."""
    try:
        return hashlib.sha256(pickle.dumps(settings)).hexdigest()
    except Exception as error:
        reason = type(error).__name__
    raise InvalidInputError(f"the arguments must be objects that can be pickled, got a {reason}")
