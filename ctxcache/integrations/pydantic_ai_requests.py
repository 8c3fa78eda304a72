"""Requests of Pydantic AI as questions: messages, settings, tools and output in the form of the chat endpoint."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    BinaryContent,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    TextContent,
    TextPart,
    ToolCallPart,
    UserContent,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ToolOrOutput
from pydantic_ai.tools import ToolDefinition

from ..models import Message, read_messages
from .history import is_end

__all__ = ["following", "new_turn", "options"]

# Settings and the parameters of `ask` that they become.
_SETTINGS: Final = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "timeout": "timeouts",
    "max_retries": "retry",
    "parallel_tool_calls": "parallel_tool_calls",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias",
    "stop_sequences": "stop",
    "service_tier": "service_tier",
    "extra_headers": "extra_headers",
    "extra_body": "extra_body",
}
_BODY: Final = ("seed", "top_k")  # sent as they are, for the service to judge
_ELSEWHERE: Final = frozenset(  # applied by Pydantic AI itself, or below
    {"tool_choice", "thinking", "cache", "request_timeout", "first_event_timeout", "framing_announcement"}
)


def following(messages: list[ModelMessage], parameters: ModelRequestParameters) -> tuple[Message, ...]:
    """Return all messages, to follow a prefix; instructions stand behind the first system prompts."""
    said = _messages(messages)
    place = next((i for i, message in enumerate(said) if message["role"] != "system"), len(said))
    said[place:place] = [{"role": "system", "content": text} for text in _instructions(messages, parameters)]
    return read_messages(said)


def new_turn(
    messages: list[ModelMessage], parameters: ModelRequestParameters, kept: tuple[Message, ...]
) -> tuple[Message, ...]:
    """Return the messages after the last answer, to follow a conversation.

    Args:
        messages: the run, history included.
        parameters: may hold instructions, which are refused.
        kept: the messages of the conversation, whose end the history must be.

    Raises:
        UserError: something does not fit.
    """
    if instructions := _instructions(messages, parameters):
        raise UserError(
            "instructions must be left out (they would be stored with each turn: give the Conversation a system "
            f"message; a prompted output needs instructions, too), got {instructions[0]!r:.80}"
        )
    answers = [i for i, message in enumerate(messages) if isinstance(message, ModelResponse)]
    first = answers[-1] + 1 if answers else 0
    turn = _messages(messages[first:])
    if not answers and turn and turn[0]["role"] == "system":
        raise UserError("system_prompt must be left out (the Conversation has its own messages)")
    if not turn:
        raise UserError("the last message must be a new turn, got an answer of the model")
    history = _messages(messages[:first])
    if history and not is_end(read_messages(history), kept):
        raise UserError(
            "message_history must be left out, or be the end of the Conversation's own messages, "
            f"got {len(history)} messages that are not"
        )
    return read_messages(turn)


def _instructions(messages: Iterable[ModelMessage], parameters: ModelRequestParameters) -> list[str]:
    if parameters.instruction_parts is not None:
        return [part.content for part in parameters.instruction_parts if part.content]
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    return [requests[-1].instructions] if requests and requests[-1].instructions else []


def _messages(messages: Iterable[ModelMessage]) -> list[dict[str, Any]]:
    """Return messages in the form of the chat endpoint."""
    said: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message, ModelResponse):
            said += _answer(message)
            continue
        files: list[UserContent] = []  # returned by tools, whose results are text alone
        for part in message.parts:
            said.append(_part(part, files))
        if files:
            said.append({"role": "user", "content": _content(files)})
    return said


def _answer(message: ModelResponse) -> list[dict[str, Any]]:
    text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
    calls = [
        {
            "id": part.tool_call_id,
            "type": "function",
            "function": {"name": part.tool_name, "arguments": part.args_as_json_str()},
        }
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    if not text and not calls:
        return []
    said: dict[str, Any] = {"role": "assistant", "content": text or None}
    return [{**said, "tool_calls": calls} if calls else said]


def _part(part: ModelRequestPart, files: list[UserContent]) -> dict[str, Any]:
    if part.part_kind == "system-prompt":
        return {"role": "system", "content": part.content}
    if part.part_kind == "user-prompt":
        return {"role": "user", "content": part.content if isinstance(part.content, str) else _content(part.content)}
    if part.part_kind == "tool-return":
        text, returned = part.model_response_str_and_user_content()
        files += returned
        return {"role": "tool", "tool_call_id": part.tool_call_id, "content": text}
    if part.part_kind == "retry-prompt":
        if part.tool_name is None:
            return {"role": "user", "content": part.model_response()}
        return {"role": "tool", "tool_call_id": part.tool_call_id, "content": part.model_response()}
    raise UserError(f"a part of a message must be a prompt, a tool's result or a retry, got {part.part_kind}")


def _content(items: Iterable[UserContent]) -> list[dict[str, Any]]:
    """Return a user's content as parts."""
    parts: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, str | TextContent):
            parts.append({"type": "text", "text": item if isinstance(item, str) else item.content})
        elif isinstance(item, ImageUrl):
            parts.append({"type": "image_url", "image_url": {"url": item.url}})
        elif isinstance(item, BinaryContent) and item.is_image:
            parts.append({"type": "image_url", "image_url": {"url": item.data_uri}})
        elif item.kind != "cache-point":  # the context is the cache
            raise UserError(f"a user's content must be text or images, got {type(item).__name__}")
    return parts


# --- settings and tools


def options(settings: Mapping[str, Any] | None, parameters: ModelRequestParameters) -> dict[str, Any]:
    """Return settings, tools and output as parameters of `ask`.

    Raises:
        UserError: a setting is unknown.
    """
    settings = settings or {}
    for name in settings:
        if name not in _SETTINGS and name not in _BODY and name not in _ELSEWHERE:
            raise UserError(f"model_settings must be without {name!r}, which no context knows: use extra_body")
    asked = {_SETTINGS[name]: value for name, value in settings.items() if name in _SETTINGS and value is not None}
    if body := {name: settings[name] for name in _BODY if settings.get(name) is not None}:
        asked["extra_body"] = {**body, **asked.get("extra_body", {})}
    if parameters.thinking is not None:
        asked["thinking"] = {"type": "disabled" if parameters.thinking is False else "enabled"}
    asked |= _tools(settings.get("tool_choice"), parameters)
    if parameters.output_mode == "native" and (output := parameters.output_object):
        schema: dict[str, Any] = {"name": output.name or "output", "schema": output.json_schema}
        further = {"description": output.description, "strict": output.strict}
        schema |= {name: value for name, value in further.items() if value is not None}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif parameters.output_mode == "prompted" and "tools" not in asked:
        asked["response_format"] = {"type": "json_object"}
    return asked


def _tools(choice: Any, parameters: ModelRequestParameters) -> dict[str, Any]:
    """Return `tools` and `tool_choice`; a choice of several tools leaves out the others."""
    tools: dict[str, ToolDefinition] = dict(getattr(parameters, "declared_tool_defs", parameters.tool_defs))
    outputs = {tool.name for tool in parameters.output_tools}
    needed = "auto" if parameters.allow_text_output or parameters.allow_image_output else "required"
    named: Any = needed
    if choice in ("none", []) or isinstance(choice, ToolOrOutput):
        allowed = {*outputs, *(choice.function_tools if isinstance(choice, ToolOrOutput) else ())}
        tools = {name: tool for name, tool in tools.items() if name in allowed}
    elif isinstance(choice, list):
        if unknown := [name for name in choice if name not in tools]:
            raise UserError(f"tool_choice must name tools of the agent, got {unknown}")
        tools = {name: tools[name] for name in tools if name in choice}
        named = "required"
    elif choice == "required":
        named = "required"
    if not tools:
        return {}
    return {"tools": [_tool(tool) for tool in tools.values()], "tool_choice": named}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters_json_schema}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}
