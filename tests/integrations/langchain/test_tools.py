"""Tools and schemas of LangChain as parameters of a chat."""

from typing import Any

import pytest

from ctxcache import InvalidInputError

pytest.importorskip("langchain_core")

from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from ctxcache.integrations.langchain.tools import response_format, to_choice, to_tools, with_raw


class Pair(BaseModel):
    """Two numbers."""

    a: int
    b: int


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


TOOLS = to_tools([double], strict=None)
NAMED = {"type": "function", "function": {"name": "double"}}


def test_tools() -> None:
    """Functions, classes and mappings are tools in OpenAI's form; `strict` goes into each."""
    names = [tool["function"]["name"] for tool in to_tools([double, Pair, *TOOLS], strict=True)]
    assert names == ["double", "Pair", "double"]
    assert "strict" not in TOOLS[0]["function"]
    assert to_tools([double], strict=True)[0]["function"]["strict"] is True


@pytest.mark.parametrize("tool", [3, {"type": "web_search_preview"}, {"no": "name"}])
def test_what_is_no_tool(tool: Any) -> None:
    """What is no function is refused, with its place: also a tool that only another vendor's service runs."""
    with pytest.raises(InvalidInputError, match=r"tools\[1\] must be a function"):
        to_tools([double, tool], strict=None)


SENT: list[tuple[Any, Any]] = [
    (None, None),
    (False, None),
    (True, "required"),
    ("any", "required"),
    ("auto", "auto"),
    ("none", "none"),
    ("double", NAMED),
    (NAMED, NAMED),
]


@pytest.mark.parametrize(("choice", "sent"), SENT)
def test_choices(choice: Any, sent: Any) -> None:
    """A choice is sent in OpenAI's form; the name of a tool will do."""
    assert to_choice(choice, TOOLS) == sent


def test_a_choice_without_a_tool() -> None:
    """A name that no tool has is refused."""
    with pytest.raises(InvalidInputError, match=r"tool_choice must be one of .*double, got 'treble'"):
        to_choice("treble", TOOLS)


def test_response_formats() -> None:
    """A schema is sent as such, or any JSON is asked for; the parser makes objects of a class, else mappings."""
    form, parser = response_format(Pair, "json_schema")
    assert form["json_schema"]["name"] == "Pair"
    assert set(form["json_schema"]["schema"]["properties"]) == {"a", "b"}
    assert parser.invoke('{"a": 1, "b": 2}') == Pair(a=1, b=2)
    form, parser = response_format(Pair.model_json_schema(), "json_mode")
    assert form == {"type": "json_object"}
    assert parser.invoke('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(("schema", "method", "field"), [(None, "json_mode", "schema"), (Pair, "magic", "method")])
def test_wrong_formats(schema: Any, method: str, field: str) -> None:
    """A schema or a method that does not exist is refused."""
    with pytest.raises(InvalidInputError) as refused:
        response_format(schema, method)
    assert refused.value.field == field


def test_raw_answers() -> None:
    """The answer comes beside what was parsed, or beside the error."""
    _, parser = response_format(Pair, "json_mode")
    says: Any = RunnableLambda(lambda text: text)
    good, bad = (with_raw(says, parser).invoke(text) for text in ('{"a": 1, "b": 2}', "no JSON"))
    assert (good["parsed"], good["parsing_error"]) == (Pair(a=1, b=2), None)
    assert (bad["raw"], bad["parsed"]) == ("no JSON", None)
    assert "no JSON" in str(bad["parsing_error"])
