"""Who answers: the protocol of an engine, and the engines there are."""

from .protocol import Engine, Prompt
from .scripted import ScriptedEngine

__all__ = ["Engine", "Prompt", "ScriptedEngine"]
