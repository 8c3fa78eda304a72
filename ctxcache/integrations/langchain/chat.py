"""`ChatCtxCache`: a chat model of LangChain, on a context."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from datetime import timedelta
from typing import Any, Final, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from ...client.resources.parameters import ChatParameters, hidden_defaults
from ...client.session import AsyncSession
from ...config import DEFAULT_BASE_URL, UNSET, hide
from ...errors import InvalidInputError
from ...keywords import unknown_keyword
from ...managed import Conversation, MemoryStore, Prefix
from ...models import Message
from .answers import StreamedAnswer, to_result
from .home import Home
from .messages import to_messages
from .tools import response_format, to_choice, to_tools, with_raw
from .turns import new_turn

__all__ = ["ChatCtxCache"]

_store: Final = MemoryStore()  # models of the same settings share a context, as many are made anew for each request

_forked: Final[list[Home]] = []  # of the parent process, whose connections must not be closed here


class ChatCtxCache(BaseChatModel):
    """A chat model of LangChain whose long beginning is kept in a context.

    Either `model` and `messages`: the model makes a `Prefix` of them, and each call asks its messages after that
    prefix. Or `prefix`, or `conversation`: given objects, whose model and session count.

    A `Conversation` takes one new turn a call: the new messages alone, or the whole history and the new messages, of
    which only the new ones are sent. A history that is not the conversation's is refused. A turn with unknown
    outcome is never repeated, whatever retries: see `Conversation.resync`.

    All calls run in one event loop, wherever they come from: plain threads, a running loop, several loops. A model that
    makes its own `Prefix` has a loop in a thread of its own. A given object belongs to the event loop of its first use.
    `close()` ends the model, as do the garbage collector and the end of the process.

    The API key is in no repr, trace, serialized form or pickle. An unpickled model reads the environment's.

    Args:
        model: the model's id.
        messages: what every call follows: messages of LangChain, in any form LangChain takes.
        prefix: a `Prefix` to ask, in place of `model` and `messages`.
        conversation: a `Conversation` to continue, in place of `model` and `messages`.
        api_key: the key; default: the environment's `CTXCACHE_API_KEY`.
        base_url: the service's URL; default: the environment's `CTXCACHE_BASE_URL`, as in `AsyncSession`.
        ttl: idle seconds after which the service drops the context, in [3600, 604800], or a timedelta.
        temperature: randomness, in [0, 2].
        top_p: the share of the probability mass to sample from, in [0, 1].
        max_tokens: the most tokens of a reply, from 1 up.
        stop: a string, or up to 4; generation stops before the first match.
        timeout: seconds for a whole call.
        max_retries: retries after the first attempt, where a repeat is harmless.
        streaming: whether `invoke` and its like stream, for the callbacks that get each token.
        chat_defaults: further parameters of every call, see `ChatParameters`; no `extra_headers`, which traces show.

    Raises:
        InvalidInputError: an argument is out of range, or there is no key.
        TypeError: there is no such argument.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = ""
    messages: Sequence[Any] = Field(default=(), repr=False)
    prefix: Prefix | None = Field(default=None, exclude=True)
    conversation: Conversation | None = Field(default=None, exclude=True)
    api_key: SecretStr | None = None
    base_url: str | None = None
    ttl: int | timedelta | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    timeout: float | None = None
    max_retries: int | None = None
    streaming: bool = False
    chat_defaults: dict[str, Any] | None = Field(default=None, repr=False)

    _home: Home = PrivateAttr()

    def __init__(self, **arguments: Any) -> None:
        if isinstance(arguments.get("api_key"), str):
            arguments["api_key"] = SecretStr(arguments["api_key"])  # tracebacks may show local variables
        if arguments.get("chat_defaults") is not None:
            arguments["chat_defaults"] = hidden_defaults(arguments["chat_defaults"])
        names = type(self).model_fields
        for name in arguments:
            if name not in names:
                raise TypeError(unknown_keyword("ChatCtxCache()", name, names))
        try:
            super().__init__(**arguments)
            problem = None
        except ValidationError as error:  # without the value, which may be a secret
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            problem = ".".join(map(str, first["loc"])), first["msg"]
        if problem is not None:
            raise InvalidInputError(f"{problem[0]}: {problem[1]}", field=problem[0], allowed=problem[1])
        self._check()
        self._home = self._make_home()

    # --- settings

    def _check(self) -> None:
        given = [name for name in ("prefix", "conversation") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InvalidInputError.of("prefix", given, "left out beside a conversation")
        if self._given is not None:
            self._check_given(given[0], self._given)
        if "extra_headers" in (self.chat_defaults or {}):
            raise InvalidInputError(
                "chat_defaults['extra_headers'] must be left out, since traces show it: give headers to a session",
                field="chat_defaults['extra_headers']",
                allowed="left out",
            )
        AsyncSession("none", DEFAULT_BASE_URL, chat_defaults=self._options())

    def _check_given(self, name: str, given: Prefix | Conversation) -> None:
        if self.model not in ("", given.model):
            raise InvalidInputError.of("model", self.model, f"left out beside a {name}, which has its own")
        for own in ("messages", "api_key", "base_url", "ttl", "cache"):
            if getattr(self, own):
                raise InvalidInputError.of(own, type(getattr(self, own)), f"left out beside a {name}")
        self.model = given.model
        self.cache = False  # LangChain's cache knows neither the turns of a conversation nor a given prefix

    @property
    def _given(self) -> Prefix | Conversation | None:
        return self.conversation if self.prefix is None else self.prefix

    def _make_home(self) -> Home:
        if self._given is not None:
            return Home(self._given, owns_session=False)
        key = None if self.api_key is None else hide(self.api_key.get_secret_value())
        session = AsyncSession(key, self.base_url)
        messages = _read_messages(self.messages)
        prefix = Prefix(session, model=self.model, messages=messages, ttl=self.ttl, store=_store)
        return Home(prefix, owns_session=True)

    def _options(self, stop: list[str] | None = None, **call: Any) -> ChatParameters:
        """Return the parameters of a call: those of the call, else of the model."""
        own = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": self.stop or None,
            "timeouts": self.timeout,
            "retry": self.max_retries,
            **(self.chat_defaults or {}),
        }
        call |= {"stop": stop or None}
        call.pop("stream", None)  # LangChain's wish for `_stream`
        options: Any = {name: value for given in (own, call) for name, value in given.items() if value is not None}
        chosen: ChatParameters = options
        return chosen

    def _one_reply(self, options: ChatParameters) -> ChatParameters:
        if options.get("n", 1) not in (1, UNSET):
            raise InvalidInputError.of("n", options["n"], "1 for a stream")
        return options

    @property
    def asked(self) -> Prefix | Conversation:
        """The `Prefix` or `Conversation` that is asked: its context, usage and cost."""
        return self._home.asked

    def close(self) -> None:
        """End the model: close the session of its own and the thread. Later calls raise a `SessionError`."""
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- calls

    def _asking(self) -> Home:
        """Return the home, made anew in a process that was forked."""
        if self._home.process != os.getpid() and self._given is None:
            _forked.append(self._home)
            self._home = self._make_home()
        return self._home

    def _question(self, messages: list[BaseMessage]) -> tuple[Message, ...]:
        question = to_messages(messages)
        return question if self.conversation is None else new_turn(self.conversation, question)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        home = self._asking()
        gate, question, options = home.gate(blocking=True), self._question(messages), self._options(stop, **kwargs)
        return to_result(gate.run(home.ask(question, options)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        home = self._asking()
        gate, question, options = home.gate(blocking=False), self._question(messages), self._options(stop, **kwargs)
        return to_result(await gate.arun(home.ask(question, options)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        home, question = self._asking(), self._question(messages)
        options = self._one_reply(self._options(stop, **kwargs))
        answer = StreamedAnswer()
        with closing(home.gate(blocking=True).iterate(lambda: home.stream(question, options))) as items:
            for item in items:
                for chunk in answer.read(item):
                    if run_manager is not None:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        home, question = self._asking(), self._question(messages)
        options = self._one_reply(self._options(stop, **kwargs))
        answer = StreamedAnswer()
        async with aclosing(home.gate(blocking=False).aiterate(lambda: home.stream(question, options))) as items:
            async for item in items:
                for chunk in answer.read(item):
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    # --- tools and structured output

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools that it may call.

        Args:
            tools: in any form LangChain takes.
            tool_choice: `auto`, `none`, `required` (also `any` and True), the name of a tool, or OpenAI's mapping.
            **kwargs: further parameters of each call; `strict` goes into the tools.
        """
        bound = to_tools(tools, strict=kwargs.pop("strict", None))
        choice = to_choice(tool_choice, bound)
        return self.bind(tools=bound, **({} if choice is None else {"tool_choice": choice}), **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Return this model with answers of a schema, as objects of a pydantic class or as mappings.

        Args:
            schema: a pydantic class, a TypedDict, or a JSON schema.
            include_raw: whether to return a mapping of `raw`, `parsed` and `parsing_error`, which does not raise.
            method: `function_calling` (a tool that must be called), `json_schema` (a `response_format` with the
                schema), or `json_mode` (any JSON object: the prompt must describe the schema).
            **kwargs: as LangChain's own `with_structured_output` takes for `function_calling`.
        """
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        form, parser = response_format(schema, method)
        asked = {"kwargs": {"method": method}, "schema": schema}  # for traces
        model = self.bind(response_format=form, ls_structured_output_format=asked, **kwargs)
        return with_raw(model, parser) if include_raw else model | parser

    # --- what LangChain shows and keeps

    @property
    def _llm_type(self) -> str:
        return "ctxcache"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """The parameters that traces show: no key, no messages."""
        shown = {"model": self.model, "base_url": self.base_url, **self._options()}
        return {name: value for name, value in shown.items() if value is not None}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Whether LangChain's `dumps` may write the model: yes, but for a given `prefix` or `conversation`."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The arguments that `dumps` writes as the name of an environment variable."""
        return {"api_key": "CTXCACHE_API_KEY"}

    def to_json(self) -> Any:
        """Return what `dumps` writes."""
        return super().to_json() if self._given is None else self.to_json_not_implemented()

    def __getstate__(self) -> dict[Any, Any]:
        """Return what is pickled: the settings, without key and connections."""
        if self._given is not None:
            raise InvalidInputError("a ChatCtxCache with a given prefix or conversation cannot be pickled")
        state = super().__getstate__()
        return {**state, "__dict__": {**state["__dict__"], "api_key": None}, "__pydantic_private__": None}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.__pydantic_private__ = {"_home": self._make_home()}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the context and the connections."""
        return self.model_copy()


def _read_messages(messages: Any) -> tuple[Message, ...]:
    try:
        return to_messages(convert_to_messages([messages] if isinstance(messages, str) else messages))
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        problem = error
    if isinstance(problem, InvalidInputError):
        raise problem
    raise InvalidInputError.of("messages", str(problem), "a list of messages in a form that LangChain takes")
