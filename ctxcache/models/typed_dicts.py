"""Mappings that may be passed as arguments, as types: editors complete the keys. Any other mapping does as well."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "ContentPartDict",
    "FunctionCallDict",
    "FunctionDict",
    "JSONSchemaDict",
    "MessageDict",
    "ResponseFormatDict",
    "StreamOptionsDict",
    "ThinkingDict",
    "ToolCallDict",
    "ToolChoiceDict",
    "ToolDict",
    "TruncationStrategyDict",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


class ContentPartDict(TypedDict):
    """A part of a message's content.

    Attributes:
        type: `text`, `image_url`, …
        text: of a `text` part.
        image_url: of an `image_url` part: `{"url": "https://…"}`.
    """

    type: str
    text: NotRequired[str]
    image_url: NotRequired[Mapping[str, Any]]


class FunctionCallDict(TypedDict):
    """The function that a model asks to have called.

    Attributes:
        name: the function's name.
        arguments: the arguments, as JSON text.
    """

    name: str
    arguments: str


class ToolCallDict(TypedDict):
    """A call that a model asks for.

    Attributes:
        id: names the call; the message with the result repeats the id.
        type: `function`.
        function: the function and the arguments.
    """

    id: str
    type: NotRequired[str]
    function: FunctionCallDict


class MessageDict(TypedDict):
    """A message of a request.

    Attributes:
        role: `system`, `user`, `assistant` or `tool`.
        content: the text, a list of parts, or None beside `tool_calls`.
        name: the speaker's name.
        tool_calls: of an assistant's message: the calls that the model asked for.
        tool_call_id: of a tool's message: the call that the content answers.
    """

    role: Role
    content: NotRequired[str | Iterable[ContentPartDict] | None]
    name: NotRequired[str]
    tool_calls: NotRequired[Iterable[ToolCallDict]]
    tool_call_id: NotRequired[str]


class FunctionDict(TypedDict):
    """A function that a model may ask for.

    Attributes:
        name: the function's name.
        description: when to call the function, and for what.
        parameters: the JSON schema of the arguments, an object.
        strict: whether the arguments must follow the schema exactly.
    """

    name: str
    description: NotRequired[str]
    parameters: NotRequired[Mapping[str, Any]]
    strict: NotRequired[bool | None]


class ToolDict(TypedDict):
    """A tool that a model may use.

    Attributes:
        type: `function`.
        function: the function.
    """

    type: Literal["function"]
    function: FunctionDict


class _FunctionNameDict(TypedDict):
    name: str


class ToolChoiceDict(TypedDict):
    """The function that a model has to ask for.

    Attributes:
        type: `function`.
        function: `{"name": …}`.
    """

    type: Literal["function"]
    function: _FunctionNameDict


class JSONSchemaDict(TypedDict):
    """A JSON schema with a name.

    Attributes:
        name: the name of the schema.
        schema: the schema itself.
        description: what an answer of this form is for.
        strict: whether the answer must follow the schema exactly.
    """

    name: str
    schema: NotRequired[Mapping[str, Any]]
    description: NotRequired[str]
    strict: NotRequired[bool | None]


class ResponseFormatDict(TypedDict):
    """The form of an answer.

    Attributes:
        type: `text`, `json_object` or `json_schema`.
        json_schema: the schema, where `type` is `json_schema`.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NotRequired[JSONSchemaDict]


class ThinkingDict(TypedDict):
    """Whether a model reasons before the answer.

    Attributes:
        type: `enabled`, `disabled`, or `auto`: the model decides.
    """

    type: Literal["enabled", "disabled", "auto"]


class StreamOptionsDict(TypedDict):
    """Options of a stream.

    Attributes:
        include_usage: whether one more chunk, without choices, tells the usage.
    """

    include_usage: NotRequired[bool]


class TruncationStrategyDict(TypedDict):
    """What to do when the history of a session context outgrows the model's window; see `TruncationStrategy`.

    Attributes:
        type: `last_history_tokens`: keep the newest tokens. `rolling_tokens`: drop the oldest block near the end.
        last_history_tokens: how many tokens to keep, from 1 up.
        rolling_tokens: False: stop generating at the end of the window instead of dropping.
        max_window_tokens: the size of the window, from 1 up.
        rolling_window_tokens: the size of a block, from 1 up.
    """

    type: Literal["last_history_tokens", "rolling_tokens"]
    last_history_tokens: NotRequired[int]
    rolling_tokens: NotRequired[bool]
    max_window_tokens: NotRequired[int]
    rolling_window_tokens: NotRequired[int]
