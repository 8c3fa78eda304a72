"""A conversation that outlives the program: each run loads it, says one thing, and saves it.

python saved_conversation.py "My name is Ada"
python saved_conversation.py "What is my name?"
"""

import asyncio
import sys
from pathlib import Path

from ctxcache import AsyncSession, Conversation, system

MODEL = "Doubao-1.5-pro-32k"
FILE = Path("conversation.json")


async def say(text: str, saved: str | None) -> str:
    """Say `text` in the saved conversation, or in a new one; return what is to be saved."""
    async with AsyncSession() as session:
        if saved is None:
            chat = Conversation(session, model=MODEL, messages=[system("You are a friendly agent")])
        else:
            chat = Conversation.load(session, saved)
        reply = await chat.ask(text)
        print(reply.text)
        return chat.save()


if __name__ == "__main__":
    before = FILE.read_text("utf-8") if FILE.exists() else None
    FILE.write_text(asyncio.run(say(sys.argv[1], before)), "utf-8")
