"""`SavedConversation`: a conversation as JSON, so that a service can restart. Pure.

Reading checks as strictly as the constructors do. Errors name the place; the value there may be content, so they show
its type only.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import attrs

from ...config import UNSET, Unset
from ...errors import InvalidInputError
from ...models import ContextRequest, FunctionCall, Message, ToolCall, TruncationStrategy
from .transcript import Transcript, TranscriptTurn

__all__ = ["InDoubt", "SavedContext", "SavedConversation", "check_in_doubt"]

InDoubt: TypeAlias = Literal["raise", "drop", "keep"]

FORMAT: Final = "ctxcache.conversation"
VERSION: Final = 1
_STRATEGY_FIELDS: Final = (
    "type",
    "last_history_tokens",
    "rolling_tokens",
    "max_window_tokens",
    "rolling_window_tokens",
)
_LOSSES: Final[dict[str | None, Literal["gone", "resync"] | None]] = {"gone": "gone", "resync": "resync", None: None}
_IN_DOUBT: Final[dict[object, InDoubt]] = {"raise": "raise", "drop": "drop", "keep": "keep"}
_MOST_SECONDS: Final = 1e15  # far beyond any date, and small enough for float()


def check_in_doubt(value: object) -> InDoubt:
    """Return what becomes of a turn in doubt, checked.

    Raises:
        InvalidInputError: for anything but `raise`, `drop` and `keep`.
    """
    if isinstance(value, str) and value in _IN_DOUBT:
        return _IN_DOUBT[value]
    raise InvalidInputError.of("in_doubt", value, "'raise', 'drop' or 'keep'")


@attrs.frozen(kw_only=True)
class SavedContext:
    """The context of a saved conversation.

    Attributes:
        id: the context's id.
        ttl: idle seconds after which the service drops the context.
        expires_at: when that is, Unix seconds.
        account: a fingerprint of the base URL and key.
        behind: whether the context lacks the assistant's messages at the end of the transcript: they are sent in front
            of the next question.
        lost: why the context must not be used any more: `gone` or `resync`; None if it may be used.
    """

    id: str
    ttl: float
    expires_at: float
    account: str
    behind: bool
    lost: Literal["gone", "resync"] | None = None


@attrs.frozen(kw_only=True)
class SavedConversation:
    """Everything a conversation needs to continue in another process.

    Attributes:
        model, ttl, truncation_strategy: the settings of its contexts.
        margin: seconds before its end from which a context is no longer used.
        in_doubt: what becomes of a turn with unknown outcome.
        transcript: the transcript.
        context: the context in use, or None.
        doubtful: the question of a turn with unknown outcome, or None.
    """

    model: str
    transcript: Transcript
    ttl: int | Unset = UNSET
    truncation_strategy: TruncationStrategy | Unset = UNSET
    margin: float
    in_doubt: InDoubt = "raise"
    context: SavedContext | None = None
    doubtful: tuple[Message, ...] | None = attrs.field(default=None, repr=False)

    def dumps(self) -> str:
        """Return the conversation as JSON."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "ttl": None if self.ttl is UNSET else self.ttl,
            "truncation_strategy": _strategy_json(self.truncation_strategy),
            "margin": self.margin,
            "in_doubt": self.in_doubt,
            "keep_turns": self.transcript.keep_turns,
            "messages": _messages_json(self.transcript.messages),
            "turns": [_turn_json(turn) for turn in self.transcript.turns],
            "context": None if self.context is None else attrs.asdict(self.context),
            "doubtful": None if self.doubtful is None else _messages_json(self.doubtful),
        }
        return json.dumps(data, allow_nan=False)

    @classmethod
    def loads(cls, text: object) -> "SavedConversation":
        """Read the JSON of `dumps`.

        Raises:
            InvalidInputError: the text is something else; `field` says where. Its content is not shown.
        """
        saved = _Reader("", _parse(text))
        if saved.data.get("format") != FORMAT:
            raise InvalidInputError(f"format must be {FORMAT!r}: this is not a saved conversation", field="format")
        if saved.data.get("version") != VERSION:
            raise InvalidInputError.of("version", saved.data.get("version"), f"{VERSION} (another release wrote this)")
        strategy = saved.data.get("truncation_strategy")
        transcript = _read_transcript(saved)
        settings = ContextRequest(
            model=saved.text("model"),
            messages=transcript.split()[0],
            ttl=_unset_if_none(saved.data.get("ttl")),
            truncation_strategy=_unset_if_none(strategy),
        )
        return cls(
            model=settings.model,
            transcript=transcript,
            ttl=settings.ttl,
            truncation_strategy=settings.truncation_strategy,
            margin=saved.number("margin"),
            in_doubt=check_in_doubt(saved.data.get("in_doubt", "raise")),
            context=None if saved.data.get("context") is None else _read_context(saved.inner("context")),
            doubtful=None if saved.data.get("doubtful") is None else saved.messages("doubtful", least=1),
        )


def _messages_json(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content, **message.extra} for message in messages]


def _turn_json(turn: TranscriptTurn) -> dict[str, Any]:
    return {
        "question": _messages_json(turn.question),
        "answer": turn.answer,
        "finished": turn.finished,
        "tool_calls": [call.to_dict() for call in turn.tool_calls],
    }


def _strategy_json(strategy: TruncationStrategy | Unset) -> dict[str, Any] | None:
    if strategy is UNSET:
        return None
    fields = {name: getattr(strategy, name) for name in _STRATEGY_FIELDS}
    return {name: value for name, value in fields.items() if value is not UNSET}


def _unset_if_none(value: Any) -> Any:
    return UNSET if value is None else value


def _read_transcript(saved: "_Reader") -> Transcript:
    turns = tuple([_read_turn(turn) for turn in saved.inner_list("turns")])
    return Transcript(messages=saved.messages("messages"), turns=turns, keep_turns=saved.whole("keep_turns"))


def _read_turn(turn: "_Reader") -> TranscriptTurn:
    return TranscriptTurn(
        turn.messages("question", least=1),
        turn.text_or_none("answer"),
        turn.flag("finished"),
        tuple([_read_call(call) for call in turn.inner_list("tool_calls")] if "tool_calls" in turn.data else []),
    )


def _read_call(call: "_Reader") -> ToolCall:
    function = call.inner("function")
    return ToolCall(
        id=call.string("id"),
        type=call.string("type"),
        function=FunctionCall(name=function.string("name"), arguments=function.string("arguments")),
    )


def _read_context(saved: "_Reader") -> SavedContext:
    lost = saved.text_or_none("lost")
    if lost not in _LOSSES:
        raise _wrong("context.lost", lost, "gone, resync or null")
    return SavedContext(
        id=saved.text("id"),
        ttl=saved.number("ttl"),
        expires_at=saved.number("expires_at"),
        account=saved.text("account"),
        behind=saved.flag("behind"),
        lost=_LOSSES[lost],
    )


def _parse(text: object) -> Any:
    if not isinstance(text, str):
        raise _wrong("text", text, "the JSON that save() returned")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"no JSON from line {error.lineno}, column {error.colno} on"  # json's own message may quote the text
    except (ValueError, RecursionError):
        place = "a number too long, or lists nested too deeply"
    hint = "" if text.lstrip()[:1] in ("{", "[") else " (to read a file, pass a Path)"
    raise InvalidInputError(f"text must be the JSON that save() returned: {place}{hint}", field="text")


def _wrong(field: str, value: object, allowed: str) -> InvalidInputError:
    """Make the error for a value that may be content: the error shows its type only."""
    return InvalidInputError(f"{field} must be {allowed}, got a {type(value).__name__}", field=field, allowed=allowed)


class _Reader:
    """Reads one JSON object of the saved conversation, at a known path."""

    def __init__(self, path: str, data: object) -> None:
        if not isinstance(data, dict):
            raise _wrong(path.rstrip(".") or "text", data, "a JSON object")
        self.path = path
        self.data: dict[str, Any] = data

    def _get(self, name: str, kind: type | tuple[type, ...], allowed: str) -> Any:
        value = self.data.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _wrong(self.path + name, value, allowed)
        return value

    def string(self, name: str) -> str:
        value: str = self._get(name, str, "a string")
        return value

    def text(self, name: str) -> str:
        value: str = self._get(name, str, "a non-empty string")
        if not value:
            raise _wrong(self.path + name, value, "a non-empty string")
        return value

    def text_or_none(self, name: str) -> str | None:
        value: str | None = self._get(name, (str, type(None)), "a string or null")
        return value

    def flag(self, name: str) -> bool:
        value: bool = self._get(name, bool, "true or false")
        return value

    def number(self, name: str) -> float:
        value: float = self._get(name, (int, float), "a number from 0 up")
        if not 0 <= value < _MOST_SECONDS:  # NaN fails the comparison
            raise _wrong(self.path + name, value, "a number from 0 up")
        return float(value)

    def whole(self, name: str) -> int:
        value: int = self._get(name, int, "a whole number")
        return value

    def inner(self, name: str) -> "_Reader":
        return _Reader(f"{self.path}{name}.", self.data.get(name))

    def inner_list(self, name: str) -> "list[_Reader]":
        items: list[Any] = self._get(name, list, "a list")
        return [_Reader(f"{self.path}{name}[{index}].", item) for index, item in enumerate(items)]

    def messages(self, name: str, least: int = 0) -> tuple[Message, ...]:
        items = self.inner_list(name)
        if len(items) < least:
            raise _wrong(self.path + name, [], "at least one message")
        return tuple(item.message() for item in items)

    def message(self) -> Message:
        role = self.text("role")
        extra = {name: value for name, value in self.data.items() if name not in ("role", "content")}
        try:
            return Message(role, self.data.get("content"), extra)
        except InvalidInputError as error:
            field, allowed = f"{self.path}{error.field}", error.allowed
        raise InvalidInputError(f"{field} must be {allowed}", field=field, allowed=allowed)  # the value may be content
