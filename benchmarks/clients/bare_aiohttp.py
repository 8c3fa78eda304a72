"""Bare aiohttp, the floor: it moves the same bytes and decodes nothing."""

from collections.abc import Callable
from typing import Final, Self

import aiohttp

from . import CONTEXT, KEY, PROMPT

_LINE: Final = b"\n"
_LINES: Final = 2  # of an event of the load: its data and the blank one; counted singly, they cannot be cut by a read
_CREATED: Final = b'"created":'
_DIGITS: Final = 16


class BareAiohttp:
    """`session.post(json=…)` with default settings and no pool limit; `iter_any()`; `read()`."""

    def __init__(self, base_url: str, connections: int) -> None:
        self.characters = 0
        self._lines = self._ends = 0
        self.url = f"{base_url}/context/chat/completions"
        self.headers = {"Authorization": f"Bearer {KEY}"}

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=self.headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    @property
    def chunks(self) -> int:
        """Events that have ended, less the end marks."""
        return self._lines // _LINES - self._ends

    def _body(self, load: str, stream: bool) -> dict[str, object]:
        body: dict[str, object] = {
            "context_id": CONTEXT,
            "model": load,
            "messages": [{"role": "user", "content": PROMPT}],
        }
        return body | {"stream": True} if stream else body

    async def stream(self, load: str) -> None:
        async with self.session.post(self.url, json=self._body(load, True)) as response:
            async for data in response.content.iter_any():
                self._lines += data.count(_LINE)
        self._ends += 1

    async def stamped(self, load: str, note: Callable[[int], None]) -> None:
        async with self.session.post(self.url, json=self._body(load, True)) as response:
            async for data in response.content.iter_any():
                self._lines += data.count(_LINE)
                at = data.find(_CREATED) + len(_CREATED)
                if len(_CREATED) <= at <= len(data) - _DIGITS:
                    note(int(data[at : at + _DIGITS]))
        self._ends += 1

    async def call(self, load: str) -> None:
        async with self.session.post(self.url, json=self._body(load, False)) as response:
            await response.read()
