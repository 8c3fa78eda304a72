"""The gateway: the Context API on this machine, over real HTTP, with a scripted engine that is no language model.

::

    server      Gateway: settings, start and end                       ─┐
    serving     one run of a server, every step undone at the end       │
    listener    the sockets: accepts connections, and cuts them         │
    connection  aiohttp's side of one connection                        │
    key_file    the keys of clients, one or those of a file             │
    app         every request: ids, route, key, log                     │ asyncio and
    faults/     what goes wrong on cue, for tests of clients            │ aiohttp
    endpoints   create, chat, models                                    │ live here
    streaming   a streamed answer on its way to the client              │
    bodies      request bodies within limits, JSON responses            │
    calls       the calls of keys that have limits                      │
    generation  the engine at work on one chat                          │
    contexts    the table of contexts, and the state that keeps them    │
    state/      contexts beyond the process: a file, or Redis           │
    engines/    Engine and Piece (write your own), ScriptedEngine,      │
                UpstreamEngine, LlamaEngine                            ─┘
    ── below: pure, clock and randomness are parameters ──
    limits      GatewayLimits, the bounds on clients
    rules/      contexts, their window and ttl, replies, tokens, the JSON of answers, refusals

A chat passes each room once: `bodies` reads and measures the request, `contexts` asks `rules.table` to accept it,
`generation` makes the `Prompt` and calls the engine, whose pieces become the fragments of `rules.reply`;
`rules.answers` turns them into JSON, and `streaming` or `endpoints` sends that. `contexts` stores the turn before the
client learns that the answer is whole.
"""

from .engines import Engine, LlamaEngine, ManagedEngine, NewContext, Piece, Prompt, ScriptedEngine, UpstreamEngine
from .faults import Fault, FaultControls, SetFault
from .limits import GatewayLimits
from .rules.tokens import count_tokens
from .server import MODELS, WINDOW, Gateway

__all__ = [
    "MODELS",
    "WINDOW",
    "Engine",
    "Fault",
    "FaultControls",
    "Gateway",
    "GatewayLimits",
    "LlamaEngine",
    "ManagedEngine",
    "NewContext",
    "Piece",
    "Prompt",
    "ScriptedEngine",
    "SetFault",
    "UpstreamEngine",
    "count_tokens",
]
