"""`LlamaEngine`: a model of your own, by llama.cpp.

::

    engine      LlamaEngine: contexts in slots                      chat  one call, and its pieces
    supervisor  starts another server when one ends or hangs
    server      one server in a child process                       child  the program of that process
    slots       which call gets which slot     files  saved slots   gguf   the header of a model file
"""

from .engine import LlamaEngine
from .gguf import SMALL_MODEL, SMALL_MODEL_HINT

__all__ = ["SMALL_MODEL", "SMALL_MODEL_HINT", "LlamaEngine"]
