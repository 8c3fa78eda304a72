"""Reads the fields of an error from a body of any known shape. Pure.

Besides the service's envelope (`{"error": {"code", "message", "param", "type"}}`) the following shapes are read:

=====================================================  ================================================================
`{"error": "text"}`, `{"message"}`, plain text, HTML   proxies and load balancers
`[{"error": {"code": 400, "message", "status"}}]`      Google's OpenAI endpoint
`{"ResponseMetadata": {"Error": {"Code", "Message"}}}` the vendor's other APIs
`{"detail": "text"}`, `{"detail": [{"loc", "msg"}]}`   FastAPI
`{"type", "title", "status", "detail"}`                RFC 9457
`{"code", "msg"}`, `{"error_code", "text"}`            Chinese gateways, FastChat
`{"object": "error", "message", "code"}`               vLLM
`{"type": "error", "error": {"type", "message"}}`      Anthropic
=====================================================  ================================================================
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from . import codec
from .errors import ProtocolError

__all__ = ["is_error", "read_error"]

_MESSAGE_SHOWN: Final = 500
_NESTING: Final = 200
_NO_ERROR: Final = ("", "0", "200", "ok", "OK", "success", "Success", "SUCCESS")

# Names in lower case without "_", in order of preference.
_MESSAGES: Final = ("message", "msg", "errormessage", "errormsg", "detail", "errordescription", "description")
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "message": (*_MESSAGES, "error", "title", "text", "reason"),
    "code": ("code", "errorcode", "errcode"),
    "type": ("type",),
    "param": ("param", "field"),
    "status": ("status", "statuscode"),
    "retry_after": ("retryafter",),
}


def read_error(body: bytes) -> dict[str, Any]:
    """Return an error's code, message, type, param, status and retry_after as text, "" where missing; and `body`."""
    try:
        parsed = codec.decode_json(body) if body else ""
    except ProtocolError as error:
        parsed = error.body
    fields = _fields(parsed)
    details: dict[str, Any] = {
        name: next((text for key in keys if (text := _string(fields.get(key)))), "") for name, keys in _NAMES.items()
    }
    message = " ".join(details["message"].split())
    if message.startswith("<"):
        message = "(an HTML page)"
    details["message"] = message if len(message) <= _MESSAGE_SHOWN else message[: _MESSAGE_SHOWN - 1] + "…"
    # Deeper nesting than any envelope's stays text: a recursive walk, repr or pickle would exceed the recursion limit.
    nested = body.count(b"[") + body.count(b"{") > _NESTING
    details["body"] = body.decode("utf-8", "replace") if nested else parsed
    return details


def _fields(parsed: Any) -> dict[str, Any]:
    """Return the fields of the object that describes the error, by name in lower case without "_"."""
    if isinstance(parsed, list):
        return _fields(parsed[0]) if parsed else {}
    if not isinstance(parsed, dict):
        return {"message": parsed} if isinstance(parsed, str) else {}
    fields = {name.lower().replace("_", ""): value for name, value in parsed.items()}
    for wrapper in ("error", "errors", "responsemetadata", "detail"):
        inner = fields.get(wrapper)
        if wrapper == "detail" and isinstance(inner, list):
            return {**fields, **_validation(inner)}
        if inner and isinstance(inner, dict | list):
            return {**fields, "message": "", **_fields(inner)}
    return fields


def _validation(problems: list[Any]) -> dict[str, str]:
    """Read FastAPI's list of problems with a request: each message with the place of the problem."""
    told, places = [], []
    for problem in problems:
        fields = _fields(problem)
        place = fields.get("loc")
        if isinstance(place, list | tuple):
            places.append(".".join(str(part) for part in place if part != "body"))
            told.append(f"{places[-1]}: {_string(fields.get('msg'))}")
        else:
            told.append(_string(fields.get("msg") or fields.get("message")))
    return {"message": "; ".join(told), "param": places[0] if places else "", "type": ""}


def is_error(parsed: Any) -> bool:
    """Whether JSON that came in place of an answer is an error, in any of the shapes above.

    An object that holds a message and nothing else is an error; with other fields, a code or status must say so.
    """
    if isinstance(parsed, list):
        return bool(parsed) and isinstance(parsed[0], dict) and is_error(parsed[0])
    if not isinstance(parsed, dict) or parsed.get("choices"):
        return False
    if parsed.get("error") or parsed.get("errors") or "error" in (parsed.get("type"), parsed.get("object")):
        return True
    metadata = parsed.get("ResponseMetadata")
    if isinstance(metadata, dict) and metadata.get("Error"):
        return True
    fields = _fields(parsed)
    if parsed and all(name.lower().replace("_", "") in _MESSAGES for name in parsed):
        return any(_string(fields.get(name)) for name in _MESSAGES)
    told = any(_string(fields.get(name)) for name in _NAMES["message"])
    code = next((text for name in _NAMES["code"] if (text := _string(fields.get(name)))), "")
    status = _string(fields.get("status") or fields.get("statuscode"))
    failed = code not in _NO_ERROR or re.fullmatch(r"[45]\d\d", status) or fields.get("success") is False
    return told and bool(failed)


def _string(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
