"""Engines, which write the answers: the protocol, and the engines that come with the package."""

from .llama import LlamaEngine
from .protocol import Engine, ManagedEngine, NewContext, Piece, Prompt
from .scripted import ScriptedEngine
from .upstream import UpstreamEngine

__all__ = [
    "Engine",
    "LlamaEngine",
    "ManagedEngine",
    "NewContext",
    "Piece",
    "Prompt",
    "ScriptedEngine",
    "UpstreamEngine",
]
