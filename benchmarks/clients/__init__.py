"""The clients, one small adapter each: the same calls, typed as each client's own documentation has them."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Final, Protocol, Self

__all__ = ["CONTEXT", "FLOOR", "KEY", "NAMES", "OURS", "PEERS", "PROMPT", "UVLOOP", "Client", "installed", "make"]

KEY: Final = "sk-benchmark"
CONTEXT: Final = "ctx-20241211104333-12345"
PROMPT: Final = "How long is the warranty of the blue one?"

OURS: Final = "ctxcache"
UVLOOP: Final = "ctxcache+uvloop"
FLOOR: Final = "aiohttp"
PEERS: Final = ("openai", "ark")

# name → (its module here, the class in it, the module it needs), in the order they are measured: the floor right after
# ctxcache, since nothing is compared so closely, and the machine's speed changes within seconds
_KNOWN: Final = {
    OURS: ("ctxcache_sdk", "CtxCache", "ctxcache"),
    FLOOR: ("bare_aiohttp", "BareAiohttp", "aiohttp"),
    UVLOOP: ("ctxcache_sdk", "CtxCache", "uvloop"),
    "openai": ("openai_sdk", "OpenAI", "openai"),
    "ark": ("ark_sdk", "Ark", "volcenginesdkarkruntime"),
}
NAMES: Final = tuple(_KNOWN)
DEFAULT_POOL: Final = 1000  # the default of both peers and of ctxcache


class Client(Protocol):
    """What a scenario may ask of a client. `load` is the name of the answer, sent as the model.

    Attributes:
        characters: characters of text in them; of the floor 0, which decodes nothing.
    """

    characters: int

    def __init__(self, base_url: str, connections: int) -> None: ...

    @property
    def chunks(self) -> int:
        """Chunks (of the floor: events) read so far, over all streams."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def stream(self, load: str) -> None:
        """Read one stream to its end; the text of each chunk is looked at."""

    async def stamped(self, load: str, note: Callable[[int], None]) -> None:
        """Do as `stream`, and give `note` what each chunk says in `created`: of the floor, the first of each read."""

    async def call(self, load: str) -> None:
        """Make one plain call."""


def installed(name: str) -> bool:
    """Whether what the client needs is there."""
    return find_spec(_KNOWN[name][2]) is not None


def make(name: str, base_url: str, connections: int) -> Client:
    """Make a client for that many streams at once; up to the usual limit of a pool, its default pool is left alone."""
    module, kind, _ = _KNOWN[name]
    client: Client = getattr(importlib.import_module(f"{__name__}.{module}"), kind)(base_url, connections)
    return client
