"""The second try at an answer that the fast reader refuses: only broken characters and fields are lost.

A lone surrogate, bytes that are not UTF-8 and a BOM cost a character (U+FFFD); numbers that JSON does not have (NaN)
are read as missing. Other types are coerced (`"7"` for a number, content in parts), and an optional field that cannot
be read is left out: `.raw` has every field as received. Choices, with deltas and messages, and the counts of a usage
stay strict. cattrs takes longer to import than the rest of the pure floor, so the import waits for the first such
answer.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from typing import Any, Final, TypeVar

import attrs

from .config import Unset
from .models.plain import parse_int, without_surrogates

__all__ = ["read_json", "structure"]

T = TypeVar("T")

# Fields that decide the meaning of an answer: an odd value there makes the whole object an error.
_STRICT: Final = frozenset(
    {"choices", "index", "message", "delta"}
    | {"prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens"}
)
_TEXT_PARTS: Final = ("text", "output_text")


def read_json(data: bytes) -> Any:
    """Decode JSON that has a lone surrogate, bytes that are not UTF-8, a BOM, or NaN.

    Raises:
        ValueError, RecursionError: for data that is not JSON, or is nested too deeply.
    """
    text = data.removeprefix(BOM_UTF8).decode("utf-8", "replace")
    return without_surrogates(json.loads(text, parse_constant=lambda _: None, parse_int=parse_int))


def structure(value: Any, kind: type[T]) -> T:
    """Read JSON data as a model.

    Raises:
        ValueError: names the places where the value does not fit the model.
    """
    convert, explain = _converter()
    try:
        found: T = convert(value, kind)
    except Exception as error:  # cattrs raises groups of whatever the coercions raised
        problem = "; ".join(explain(error))
    else:
        return found
    raise ValueError(problem)


@cache
def _converter() -> tuple[Callable[[Any, type], Any], Callable[[BaseException], list[str]]]:
    """Return the tolerant reader, and a function that lists the faults behind an error."""
    import cattrs

    converter = cattrs.Converter()

    def hook(kind: type) -> Callable[[Any, Any], Any]:
        fields = [field for field in attrs.fields(kind) if field.metadata.get("read", True)]

        def read(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise TypeError(f"expected an object, got {type(value).__name__}")
            found: dict[str, Any] = {}
            for field in fields:
                item = _field(value, field.name)
                if item is None:
                    continue
                try:
                    found[field.name] = converter.structure(item, field.type)
                except Exception as error:
                    if field.default is attrs.NOTHING or field.name in _STRICT:
                        note = cattrs.AttributeValidationNote(f"@ attribute {field.name}", field.name, field.type)
                        error.__notes__ = [*getattr(error, "__notes__", []), note]
                        raise cattrs.ClassValidationError("", [error], kind) from None
            return kind(**found)

        return read

    converter.register_structure_hook_factory(attrs.has, hook)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, Any], _further)
    converter.register_structure_hook(int | Unset, _integer)
    converter.register_structure_hook(bool | Unset, lambda value, _: bool(value))
    return converter.structure, cattrs.transform_error


def _field(value: Mapping[str, Any], name: str) -> Any:
    """Return a field of a JSON object, in the form that most services send."""
    item = value.get(name)
    if name == "last_history_tokens" and item is None:
        return value.get("last_history_token")  # seen in answers of the service
    if name == "tool_calls" and isinstance(item, list):
        return [call for call in item if isinstance(call, dict)]
    if name == "arguments" and isinstance(item, dict | list):
        return json.dumps(item)  # Ollama
    if name in ("content", "reasoning_content") and isinstance(item, list | dict):
        return _text_parts(item if isinstance(item, list) else [item])
    return item


def _text_parts(parts: list[Any]) -> str | None:
    """Join the texts of content that comes in parts (`{"type": "text", "text": …}`); None where no part has text."""
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS else part
        if isinstance(text, dict):
            text = text.get("value")  # OpenAI's assistants
        if isinstance(text, str):
            texts.append(text)
    return "".join(texts) if texts else None


def _integer(value: Any, _: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("expected a number, got a bool")
    return value if isinstance(value, int) else int(float(value))


def _further(value: Any, _: Any) -> dict[str, Any]:
    """Read an object that is kept as data, with None for numbers beyond a float's range, which JSON cannot carry."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return {name: _finite(item) for name, item in value.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return str(value)
