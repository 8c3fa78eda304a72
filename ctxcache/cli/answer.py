"""A streamed answer on the terminal: text to stdout on arrival, usage to stderr."""

from typing import Any, Final

from ..client.session import AsyncSession
from ..errors import CtxCacheError
from ..models import ChatCompletion
from .terminal import Terminal
from .usage import usage_line

__all__ = ["stream_answer"]

_WHOLE: Final = (None, "stop")


async def stream_answer(session: AsyncSession, chat: dict[str, Any], terminal: Terminal) -> None:
    """Ask, and write the answer on arrival. The first of several replies is streamed, the others follow whole.

    Args:
        session: makes the call.
        chat: the parameters of the call.
        terminal: gets answer and usage.

    Raises:
        CtxCacheError: any of the family, after the text that arrived before it was written.
    """
    replies = chat.get("n", 1)
    async with session.chat.stream(**chat, stream_options={"include_usage": True}) as stream:
        _heading(terminal, 1, replies)
        try:
            async for chunk in stream:
                terminal.out.write(chunk.text)
        except CtxCacheError:
            _write_others(terminal, stream.partial(), replies)
            raise
    answer = stream.completion()
    _write_others(terminal, answer, replies)
    cut = "" if answer.finish_reason in _WHOLE else f"; the answer was cut: {answer.finish_reason}"
    terminal.note(usage_line(answer.usage) + cut)


def _write_others(terminal: Terminal, answer: ChatCompletion, replies: int) -> None:
    terminal.out.end_line()
    for choice in answer.choices:
        if choice.index > 0:
            _heading(terminal, choice.index + 1, replies)
            terminal.out.write(choice.message.content or "")
            terminal.out.end_line()


def _heading(terminal: Terminal, number: int, replies: int) -> None:
    if replies > 1:
        terminal.out.line(f"--- reply {number} of {replies} ---", "dim")
