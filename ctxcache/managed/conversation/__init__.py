"""Turns in order on a session context: `Conversation`, its transcript, and how its context is rebuilt."""

from .conversation import Conversation
from .transcript import TranscriptTurn

__all__ = ["Conversation", "TranscriptTurn"]
