"""Tools and schemas of LangChain as parameters of a chat. Pure."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass

from ...errors import InvalidInputError

__all__ = ["response_format", "to_choice", "to_tools", "with_raw"]

_CHOICES: Final = ("none", "auto", "required")


def to_tools(tools: Sequence[Any], *, strict: bool | None) -> list[dict[str, Any]]:
    """Return tools, in any form LangChain takes, in OpenAI's form.

    Raises:
        InvalidInputError: names the tool that has no such form.
    """
    return [_to_tool(place, tool, strict) for place, tool in enumerate(tools)]


def _to_tool(place: int, tool: Any, strict: bool | None) -> dict[str, Any]:
    try:
        converted = convert_to_openai_tool(tool, strict=strict)
    except (ValueError, TypeError):
        converted = {}
    if not isinstance(converted.get("function"), dict):  # tools that the service of another vendor runs have none
        raise InvalidInputError.of(f"tools[{place}]", tool, "a function, in a form that LangChain takes")
    return converted


def to_choice(
    choice: dict[str, Any] | str | bool | None, tools: Sequence[dict[str, Any]]
) -> dict[str, Any] | str | None:
    """Return the `tool_choice` to send; None for none.

    Raises:
        InvalidInputError: no tool has that name.
    """
    if choice is None or choice is False:
        return None
    if choice is True or choice == "any":
        return "required"
    if isinstance(choice, str) and choice not in _CHOICES:
        names = [str(tool["function"]["name"]) for tool in tools]
        if choice not in names:
            raise InvalidInputError.of("tool_choice", choice, f"one of {', '.join((*_CHOICES, 'any', *names))}")
        return {"type": "function", "function": {"name": choice}}
    return choice


def response_format(schema: Any, method: str) -> tuple[dict[str, Any], Any]:
    """Return the `response_format` to send, and the parser of the answer.

    Raises:
        InvalidInputError: the schema has no form LangChain takes, or there is no such method.
    """
    try:
        wanted = convert_to_json_schema(schema)
    except (ValueError, TypeError):
        wanted = None
    if wanted is None:
        raise InvalidInputError.of("schema", schema, "a pydantic class, a TypedDict or a JSON schema with a title")
    parser: Any = JsonOutputParser()
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        parser = PydanticOutputParser(pydantic_object=schema)
    if method == "json_mode":
        return {"type": "json_object"}, parser
    if method == "json_schema":
        return {"type": "json_schema", "json_schema": {"name": wanted["title"], "schema": wanted}}, parser
    raise InvalidInputError.of("method", method, "'function_calling', 'json_schema' or 'json_mode'")


def with_raw(model: Runnable[Any, Any], parser: Any) -> Runnable[Any, Any]:
    """Return a model that answers with `raw`, `parsed` and `parsing_error`, which is not raised."""
    parsed: Any = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed: Any = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
