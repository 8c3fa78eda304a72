"""Chunks in memory to one completion, by those clients that can."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from . import loads
from .clients import OURS

Fold = Callable[[], str]


def payloads(count: int) -> list[bytes]:
    """The JSON of the chunks of one stream, each with a text of its own."""
    texts = (loads.chunk({"content": f" word{number}", "role": "assistant"}) for number in range(count - 2))
    return [loads.data(chunk) for chunk in (*texts, *loads.last_chunks())]


def text(count: int) -> str:
    """The text that the chunks of `payloads` make."""
    return "".join(f" word{number}" for number in range(count - 2))


def ctxcache_fold(data: Sequence[bytes]) -> Fold:
    from ctxcache.codec import decode_chunk
    from ctxcache.fold import Fold as Folding

    chunks = list(map(decode_chunk, data))

    def fold() -> str:
        folding = Folding()
        folding.add(chunks)
        return folding.completion().text

    return fold


def openai_fold(data: Sequence[bytes]) -> Fold:
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    chunks = list(map(ChatCompletionChunk.model_validate_json, data))

    def fold() -> str:
        state: Any = ChatCompletionStreamState()
        for chunk in chunks:
            for _ in state.handle_chunk(chunk):
                pass
        return str(state.get_final_completion().choices[0].message.content)

    return fold


FOLDS: Final[dict[str, Callable[[Sequence[bytes]], Fold]]] = {OURS: ctxcache_fold, "openai": openai_fold}


def prepared(client: str, count: int) -> Fold | None:
    """A client's fold of that many chunks, checked; None if it has none."""
    make = FOLDS.get(client)
    if make is None:
        return None
    fold = make(payloads(count))
    if fold() != text(count):
        raise RuntimeError(f"{client} folds {count} chunks to something else")
    return fold
