"""An engine of one's own: the local gateway answers from it, with the rules of the service around it.

Here it is a lookup table. It may as well call a model on this machine.
"""

import asyncio
from collections.abc import AsyncIterator

from ctxcache import AsyncSession, Prefix, system
from ctxcache.gateway import Gateway, Prompt


class Lookup:
    """Answers with the first line of the context that holds the question's last word."""

    async def generate(self, prompt: Prompt) -> AsyncIterator[str]:
        """Write the answer in pieces, one for each word."""
        word = prompt.question[-1].text.rstrip("?").split()[-1].lower()
        lines = "\n".join(message.text for message in prompt.context).splitlines()
        found = next((line for line in lines if word in line.lower()), "I do not know.")
        for piece in found.split():
            yield piece + " "


async def main() -> None:
    """Ask the gateway about a manual of two lines."""
    async with Gateway(engine=Lookup()) as gateway, AsyncSession(gateway.api_key, gateway.base_url) as session:
        manual = Prefix(
            session,
            model="Doubao-1.5-pro-32k",
            messages=[system("The warranty lasts two years.\nRepairs are done in Delft.")],
        )
        for question in ("How long is the warranty?", "Where are repairs?", "What is the price?"):
            print(question, (await manual.ask(question)).text)


if __name__ == "__main__":
    asyncio.run(main())
