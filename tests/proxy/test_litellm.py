"""LiteLLM's SDK before the proxy, with nothing changed but the base URL and the key."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ctxcache.gateway import Gateway

from .conftest import LONG, MARK, MODEL, Front, NotedEngine, Upstream, marked

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing LiteLLM asks the network for prices

litellm = pytest.importorskip("litellm")

Before = Callable[..., Awaitable[Front]]

pytestmark = pytest.mark.filterwarnings("ignore")  # LiteLLM's own


@pytest.fixture
def ask(front: Front, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Ask as a program would."""
    monkeypatch.setattr(litellm, "suppress_debug_info", True)

    async def ask(**call: Any) -> Any:
        model = f"openai/{call.pop('model', MODEL)}"
        where = {"api_base": front.proxy.base_url, "api_key": front.proxy.api_key}
        return await litellm.acompletion(model=model, max_retries=0, **{**where, **call})

    return ask


def cached(answer: Any) -> int:
    """The cached tokens of an answer or of a stream's last chunk."""
    details = answer.usage.prompt_tokens_details
    return 0 if details is None else details.cached_tokens or 0


async def test_a_marked_beginning(ask: Callable[..., Any], engine: NotedEngine) -> None:
    """A message with LiteLLM's `cache_control` is read from the cache: one context, the same answers."""
    for question in ("one", "two", "three"):
        answer = await ask(**marked(question))
        assert answer.choices[0].message.content == f"echo: {question} "
        assert (answer.choices[0].finish_reason, cached(answer) > 500) == ("stop", True)
    assert len(engine.contexts) == 1
    assert [[message.text for message in prompt.question] for prompt in engine.prompts] == [["one"], ["two"], ["three"]]


async def test_a_mark_on_a_part(ask: Callable[..., Any], engine: NotedEngine) -> None:
    """The mark may stand on the last part of a message's content."""
    content = [{"type": "text", "text": LONG, **MARK}]
    messages = [{"role": "system", "content": content}, {"role": "user", "content": "Hi"}]
    assert cached(await ask(messages=messages)) > 500
    assert len(engine.contexts) == 1


async def test_a_stream(ask: Callable[..., Any], engine: NotedEngine) -> None:
    """A stream over the context has the same text, and the usage last."""
    plain = await ask(**marked("Hi"))
    stream = await ask(**marked("Hi", stream=True, stream_options={"include_usage": True}))
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == plain.choices[0].message.content == "echo: Hi "
    assert cached(chunks[-1]) == cached(plain) > 500
    assert len(engine.contexts) == 1


async def test_with_and_without(upstream: Upstream, before: Before, ask: Callable[..., Any]) -> None:
    """Without a mark the chat is passed on, and the answer is the same but for the cached tokens."""
    body: Any = {"id": "c", "object": "chat.completion", "created": 1, "model": MODEL}
    body["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "echo: Hi "}, "finish_reason": "stop"}]
    body["usage"] = {"prompt_tokens": 600, "completion_tokens": 3, "total_tokens": 603}
    upstream.say("/chat/completions", json.dumps(body).encode())
    front = await before(upstream.url)
    messages = [{"role": "system", "content": LONG}, {"role": "user", "content": "Hi"}]
    plain = await ask(messages=messages, api_base=front.proxy.base_url, api_key=front.proxy.api_key)
    over_context = await ask(**marked("Hi"))
    assert plain.choices[0].message.content == over_context.choices[0].message.content
    assert (cached(plain), cached(over_context) > 500) == (0, True)
    assert json.loads(upstream.requests[0][1])["messages"] == messages


async def test_many_at_once(ask: Callable[..., Any], engine: NotedEngine) -> None:
    """Many chats at once on a new beginning share one context."""
    answers = await asyncio.gather(*(ask(**marked(f"question {number}")) for number in range(50)))
    assert [answer.choices[0].message.content for answer in answers] == [
        f"echo: question {number} " for number in range(50)
    ]
    assert len(engine.contexts) == 1


async def test_expiry(ask: Callable[..., Any], gateway: Gateway, engine: NotedEngine) -> None:
    """A context that has ended is replaced, unnoticed."""
    await ask(**marked("one"))
    assert gateway.expire(engine.contexts[0].id)
    assert (await ask(**marked("two"))).choices[0].message.content == "echo: two "


async def test_errors(ask: Callable[..., Any]) -> None:
    """An error of the service has LiteLLM's class."""
    with pytest.raises(litellm.NotFoundError):
        await ask(**{**marked("x"), "model": "no-such-model"})
