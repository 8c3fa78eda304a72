"""The gateway: the Context API on this machine, over real HTTP, with a scripted engine that is no language model.

::

    server.py      Gateway: the socket, start and end
    app.py         the endpoints: HTTP in, rules asked, HTTP out       ─┐ asyncio and aiohttp
    generation.py  the engine at work on one call                       │ live here
    engine.py      Engine (write your own), ScriptedEngine             ─┘
    ── below: pure, clock and randomness are parameters ──
    answers.py     the JSON of the answers
    contexts.py    the contexts and what may be done with them: ids, ttl, busy, what is stored
    window.py      the context window and its strategies
    reply.py       one reply: stop strings, the most tokens
    tokens.py      what a token is here
    refusals.py    every error, in the service's words
"""

from .engines import Engine, Prompt, ScriptedEngine
from .rules.tokens import count_tokens
from .server import MODELS, WINDOW, Gateway

__all__ = ["MODELS", "WINDOW", "Engine", "Gateway", "Prompt", "ScriptedEngine", "count_tokens"]
