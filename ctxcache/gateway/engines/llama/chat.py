"""One chat in a slot of a llama.cpp server, which is called as any server of OpenAI's API is."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from ....client.stream import ChatStream
from ....errors import CtxCacheError, SessionError
from ....models import Message, user
from ...rules.pieces import Piece
from ..protocol import Prompt
from ..upstream.asking import chat_parameters
from ..upstream.failures import as_refusal, blames_server, check_finished
from ..upstream.reading import read_chunks
from .server import LlamaServer

__all__ = ["generate", "warm"]

# Fields that llama.cpp has beside OpenAI's, and that are not the client's to set.
_RESERVED_FIELDS: Final = ("cache_prompt", "id_slot", "n_cmpl", "n_predict", "prompt", "return_progress")


async def generate(server: LlamaServer, slot: int, prompt: Prompt) -> AsyncGenerator[Piece, None]:
    """Write a reply in a slot.

    Raises:
        ConnectionError: the server gave no answer, or only a part.
        APIStatusError: the server refused the request.
    """
    parameters = chat_parameters(prompt, "llama.cpp")
    extra = {name: value for name, value in parameters["extra_body"].items() if name not in _RESERVED_FIELDS}
    if "repetition_penalty" in parameters:
        extra = {"repeat_penalty": parameters.pop("repetition_penalty"), **extra}
    parameters["extra_body"] = extra
    try:
        async with await _open(server, slot, prompt.messages, parameters) as stream:
            async for chunk in stream:
                for piece in read_chunks([chunk]):
                    yield piece
        check_finished(stream.completion())
    except CtxCacheError as error:
        failure = error
    else:
        return
    raise _translated(failure, prompt.request.model)


async def warm(server: LlamaServer, slot: int, messages: Sequence[Message]) -> None:
    """Compute the tokens of a context in a slot, as far as a chat on the context will need them.

    Raises:
        ConnectionError: the server gave no answer.
        APIStatusError: the context does not fit the slot.
    """
    # Templates want a question at the end; no more of it is kept than a chat has in common.
    question = [] if messages[-1].role == "user" else [user(".")]
    try:
        async with await _open(server, slot, [*messages, *question], {"max_tokens": 1, "extra_body": {}}) as stream:
            await stream.finish()
    except CtxCacheError as error:
        failure = error
    else:
        return
    raise _translated(failure, "")


async def _open(
    server: LlamaServer, slot: int, messages: Sequence[Message], parameters: Mapping[str, Any]
) -> ChatStream:
    fields = {**parameters, "extra_body": {**parameters["extra_body"], "id_slot": slot}}
    chat = server.session.chat
    prepared = chat.prepare(model=server.model, messages=messages, stream=True, repeatable=True, **fields)
    return await chat.open_alone(prepared)


def _translated(failure: CtxCacheError, model: str) -> Exception:
    # The session of a server is closed with the server.
    gone = isinstance(failure, SessionError) or blames_server(failure)
    return ConnectionResetError(str(failure)) if gone else as_refusal(failure, model)
