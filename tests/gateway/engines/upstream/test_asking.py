"""A prompt as the parameters of a chat."""

from typing import Any

import pytest

from ctxcache.gateway import Prompt
from ctxcache.gateway.engines.upstream.asking import KINDS, chat_parameters
from ctxcache.models import ChatRequest, user


def parameters(kind: str = "openai", client: str = "name-of-the-key", **fields: Any) -> dict[str, Any]:
    """Return the parameters for a request."""
    request = ChatRequest(context_id="ctx-1", model="m", messages=[user("Hi")], **fields)
    prompt = Prompt(request=request, context=(), context_tokens=0, question=request.messages, client=client)
    return chat_parameters(prompt, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_only_vllm_and_sglang_get_a_salt(kind: str) -> None:
    """The salt is the name of the client's key; servers that do not know the field may refuse it."""
    salted = kind in ("vllm", "sglang")
    assert parameters(kind)["extra_body"] == ({"cache_salt": "name-of-the-key"} if salted else {})
    assert parameters(kind, client="")["extra_body"] == {}


def test_a_client_cannot_choose_its_salt() -> None:
    """A client's own `cache_salt` is replaced, or it could look into another's cache."""
    assert parameters("vllm", extra={"cache_salt": "another"})["extra_body"] == {"cache_salt": "name-of-the-key"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("thinking", ["enabled", "disabled", "auto"])
def test_thinking_in_the_words_of_a_template(kind: str, thinking: str) -> None:
    """Servers with chat templates get `enable_thinking`, others the field as it is; `auto` is the template's own."""
    given = parameters(kind, client="", thinking={"type": thinking}, extra={"chat_template_kwargs": {"a": 1}})
    if kind in ("ollama", "openai"):
        assert given["thinking"] == {"type": thinking}
        assert given["extra_body"] == {"chat_template_kwargs": {"a": 1}}
        return
    enabled = {} if thinking == "auto" else {"enable_thinking": thinking == "enabled"}
    assert "thinking" not in given
    assert given["extra_body"] == {"chat_template_kwargs": {**enabled, "a": 1}}


def test_a_clients_own_template_settings_win() -> None:
    """What the client says in `chat_template_kwargs` itself is not overruled."""
    own = {"chat_template_kwargs": {"enable_thinking": True}}
    assert parameters("vllm", client="", thinking={"type": "disabled"}, extra=own)["extra_body"] == own


def test_the_usage_is_always_asked_for() -> None:
    """A client's stream options are kept, but for `include_usage`."""
    options = {"include_usage": False, "other": 1}
    assert parameters(stream_options=options)["stream_options"] == {"include_usage": True, "other": 1}
    assert parameters()["stream_options"] == {"include_usage": True}
