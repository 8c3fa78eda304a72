"""The proxy: chats in OpenAI's shape in front, contexts behind.

::

    server       Proxy: settings, start and end                      ─┐
    endpoints    a chat over a context, or without; the models        │ asyncio and
    prefixes     the live prefixes, within a budget                   │ aiohttp
    plain        a call without a context, passed on as sent          │ live here
                                                                     ─┘
    ── below: pure ──
    recognition  which beginnings of a chat may have a context
    learning     beginnings that many chats share
    answers      the service's answers in OpenAI's shape
"""

from .server import Proxy

__all__ = ["Proxy"]
