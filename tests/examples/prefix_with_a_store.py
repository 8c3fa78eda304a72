"""Many questions about one manual, from any number of processes that share one context.

Run it twice: the second run finds the context of the first one in `contexts.db` and creates none.
"""

import asyncio

from ctxcache import AsyncSession, CreateEvent, Hooks, Prefix, SQLiteStore, system

MODEL = "Doubao-1.5-pro-32k"
MANUAL = "The warranty lasts two years. Repairs abroad are paid for by the owner. " * 100
QUESTIONS = ["How long is the warranty?", "And abroad?", "Who repairs it?"]


def report(event: CreateEvent) -> None:
    """Say that a context was created, which is what costs money."""
    print("created", event.context.id)


async def main() -> None:
    """Answer all questions, as many at once as the service takes."""
    async with SQLiteStore("contexts.db") as store, AsyncSession(hooks=Hooks(on_create=report)) as session:
        manual = Prefix(session, model=MODEL, messages=[system(MANUAL)], ttl=3600, store=store)
        async for answer in manual.map(QUESTIONS, ordered=True):
            print(QUESTIONS[answer.index], "→", answer.text if answer.ok else answer.error)


if __name__ == "__main__":
    asyncio.run(main())
