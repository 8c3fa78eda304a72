"""A conversation that outlives the program: each run goes on where the last one stopped, and says one thing.

python saved_conversation.py "My name is Ada"
python saved_conversation.py "What is my name?"
"""

import asyncio
import sys
from pathlib import Path

from ctxcache import AsyncSession, Conversation, system

MODEL = "Doubao-1.5-pro-32k"
FILE = Path("conversation.json")


def begin(session: AsyncSession) -> Conversation:
    """Return the saved conversation, or a new one; every turn is saved."""
    if FILE.exists():
        return Conversation.load(session, FILE, autosave=FILE)
    return Conversation(session, model=MODEL, messages=[system("You are a friendly agent")], autosave=FILE)


async def say(text: str) -> None:
    """Make one turn."""
    async with AsyncSession() as session:
        reply = await begin(session).ask(text)
        print(reply.text)


if __name__ == "__main__":
    asyncio.run(say(sys.argv[1]))
