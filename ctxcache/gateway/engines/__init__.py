"""Engines, which write the answers: the protocol, and the engines that come with the package."""

from .protocol import Engine, ManagedEngine, NewContext, Piece, Prompt
from .scripted import ScriptedEngine

__all__ = ["Engine", "ManagedEngine", "NewContext", "Piece", "Prompt", "ScriptedEngine"]
