"""Turns in order on a session context: `Conversation`.

Floors, from the top; a file imports from lower floors only::

    conversation      Conversation: the public face
    dialogue          Dialogue: sends one turn after the other, and records their outcomes
    session_context   the context in use, rebuilt from the transcript      autosave    writes the conversation to a file
    saved             the conversation as JSON
    transcript        the messages so far                        turn_lock   first come, first served
"""

from .conversation import Conversation
from .transcript import TranscriptTurn

__all__ = ["Conversation", "TranscriptTurn"]
