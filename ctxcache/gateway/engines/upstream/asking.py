"""A prompt → the parameters of a chat at a server of OpenAI's API. Pure.

Every field of the client's request is passed on, but for those that mean something else here: the context, `n`, `stop`
and the limit of tokens, which the gateway has read, and the fields that tell clients apart. What a client sent as null
was left out when the request was read.
"""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from ....config import UNSET
from ....models import ChatRequest
from ..protocol import Prompt

__all__ = ["KINDS", "chat_parameters"]

KINDS: Final = ("vllm", "sglang", "llama.cpp", "ollama", "openai")
_SALTED: Final = ("vllm", "sglang")  # know `cache_salt`
_TEMPLATED: Final = ("vllm", "sglang", "llama.cpp")  # know `chat_template_kwargs`
_NOT_PASSED_ON: Final = frozenset(
    {"context_id", "model", "messages", "stream", "stream_options", "n", "stop", "max_tokens", "extra"}
)
_PASSED_ON: Final = tuple(field.name for field in attrs.fields(ChatRequest) if field.name not in _NOT_PASSED_ON)


def chat_parameters(prompt: Prompt, kind: str) -> dict[str, Any]:
    """Return the parameters of `session.chat.prepare` for a prompt, without model and messages."""
    request = prompt.request
    given = {name: value for name in _PASSED_ON if (value := getattr(request, name)) is not UNSET}
    extra = dict(request.extra)
    if prompt.replies > 1:
        given["n"] = prompt.replies
    if prompt.stop:
        given["stop"] = prompt.stop
    # Left out, the limit is the server's. The gateway's count of the room is too rough: vLLM refuses a token too many.
    if request.max_tokens is not UNSET:
        given["max_tokens"] = prompt.max_tokens
    elif isinstance(extra.get("max_completion_tokens"), int):
        extra["max_completion_tokens"] = min(extra["max_completion_tokens"], prompt.max_tokens)
    if kind in _TEMPLATED:
        extra |= _template(given, extra)
    options = {} if request.stream_options is UNSET else dict(request.stream_options)
    return {
        **given,
        "stream_options": {**options, "include_usage": True},
        "extra_body": extra | _salt(prompt.client, kind),
        "extra_headers": _routing_headers(request.context_id),
    }


def _salt(client: str, kind: str) -> dict[str, str]:
    """Keep the cached prompts of one client's key apart from another's, who could tell them by the time they take."""
    return {"cache_salt": client} if kind in _SALTED and client else {}


def _routing_headers(context_id: str) -> dict[str, str]:
    """Tell routers what belongs together: vllm-router and others read the first, SGLang's gateway the second."""
    return {"X-Session-ID": context_id, "X-SMG-Routing-Key": context_id}


def _template(given: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Say `thinking` in the words of chat templates."""
    thinking = given.pop("thinking", {})
    if thinking.get("type") not in ("enabled", "disabled"):
        return {}
    own = extra.get("chat_template_kwargs")
    enabled = {"enable_thinking": thinking["type"] == "enabled"}
    return {"chat_template_kwargs": {**enabled, **(own if isinstance(own, Mapping) else {})}}
