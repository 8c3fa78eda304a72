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


async def say(text: str) -> None:
    """Say `text` in the saved conversation, or in a new one; every turn is saved."""
    async with AsyncSession() as session:
        if FILE.exists():
            chat = Conversation.load(session, FILE, autosave=FILE)
        else:
            chat = Conversation(session, model=MODEL, messages=[system("You are a friendly agent")], autosave=FILE)
        reply = await chat.ask(text)
        print(reply.text)


if __name__ == "__main__":
    asyncio.run(say(sys.argv[1]))
