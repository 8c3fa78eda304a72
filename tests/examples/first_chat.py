"""A first chat: create a context, ask one question, print the answer as it arrives.

The key and the base URL come from CTXCACHE_API_KEY and CTXCACHE_BASE_URL. `ctxcache serve` prints a pair to try.
"""

import asyncio

from ctxcache import AsyncSession, system, user

MODEL = "Doubao-1.5-pro-32k"


async def main() -> None:
    """Ask for a joke."""
    async with AsyncSession() as session:
        context = await session.context.create(model=MODEL, messages=[system("You are a friendly agent")], ttl=3600)
        question = [user("A joke, please")]
        async with session.chat.stream(context_id=context.id, model=MODEL, messages=question) as stream:
            async for text in stream.text():
                print(text, end="", flush=True)
        print("\nfinish reason:", stream.completion().finish_reason)


if __name__ == "__main__":
    asyncio.run(main())
