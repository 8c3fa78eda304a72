"""A gateway whose engine answers as a test dictates, and contexts on it."""

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ctxcache import AsyncSession, Conversation, Prefix, Retry, system
from ctxcache.gateway import Gateway, Piece, Prompt

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else importing LiteLLM asks the network for prices

MODEL = "Doubao-1.5-pro-32k"
MANUAL = "The warranty lasts two years. " * 60


class Scripted:
    """Answers with what a test put in line, else with `echo: QUESTION`; notes the prompts.

    An item of the line is an exception to raise, or a list of pieces, of which an exception may be the last.
    """

    def __init__(self) -> None:
        self.line: list[Any] = []
        self.prompts: list[Prompt] = []

    async def generate(self, prompt: Prompt) -> AsyncIterator[Any]:
        """Write a reply."""
        self.prompts.append(prompt)
        pieces = self.line.pop(0) if self.line else ["echo: ", prompt.question[-1].text]
        plain = all(isinstance(piece, str | Exception) for piece in pieces)  # then the gateway counts the tokens
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield Piece(text=piece) if isinstance(piece, str) and not plain else piece

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Role and text of the last question's messages, without the context's."""
        return [(message.role, message.text) for message in self.prompts[-1].question]


@pytest.fixture
def engine() -> Scripted:
    """Writes the answers."""
    return Scripted()


@pytest.fixture
async def gateway(engine: Scripted) -> AsyncIterator[Gateway]:
    """The service."""
    async with Gateway(engine=engine) as gateway:
        yield gateway


@pytest.fixture
async def session(gateway: Gateway) -> AsyncIterator[AsyncSession]:
    """A session that is quick to retry."""
    async with AsyncSession(gateway.api_key, gateway.base_url, retry=Retry(first_delay=0.001)) as session:
        yield session
        assert session.holdings() == {}


@pytest.fixture
def prefix(session: AsyncSession) -> Prefix:
    """A long beginning."""
    return Prefix(session, model=MODEL, messages=[system(MANUAL)])


@pytest.fixture
def conversation(session: AsyncSession) -> Conversation:
    """A conversation."""
    return Conversation(session, model=MODEL, messages=[system("You are a friendly agent.")])
