"""What the service plays in a conversation, and how to read what came of it."""

import asyncio

from ctxcache import system

from ...hostile import CONTEXT, DONE, answer, chunk, event, refusal
from ...hostile import streamed as whole_stream

BRIEF = (system("Be brief."),)
GONE = [refusal(404, "NotFound.ContextID", "The specified context is not found.")]
GONE_EVENT = event({"error": {"code": "NotFound.ContextID", "message": "The specified context is not found."}})
FAILED = [refusal(500, "InternalServiceError")]
ROLE = event({"id": "c-1", "choices": [{"index": 0, "delta": {"role": "assistant"}}]})


def made(name="ctx-1", **fields):
    """The answer of a create."""
    return [answer({**CONTEXT, "id": name, **fields})]


def says(text, **fields):
    """The answer of a turn."""
    message = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
    return [answer({"id": "c-1", "choices": [message], **fields})]


def streams(*texts):
    """The whole streamed answer of a turn."""
    return [whole_stream(*(chunk(text) for text in texts), chunk("", finish="stop"), DONE)]


def told(hostile):
    """What the service was told: the context, or `create`, and the messages."""
    return [
        (post.json.get("context_id", "create"), *(f"{m['role'][0]}:{m['content']}" for m in post.json["messages"]))
        for post in hostile.posts
    ]


def said(conversation):
    """The transcript, in short."""
    return [(turn.question[-1].content, turn.answer, turn.finished) for turn in conversation.transcript]


async def read(stream):
    """Read a stream to its end."""
    return "".join([text async for text in stream.text()])


async def a_while():
    """Let everything that can go on go on."""
    for _ in range(50):
        await asyncio.sleep(0)
