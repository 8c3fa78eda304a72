"""The engine that asks servers of OpenAI's API: vLLM, SGLang, llama.cpp, Ollama, LMDeploy, or a router before them.

::

    engine      UpstreamEngine: a prompt is sent to a server, and to another one where nothing was answered
    server      one server: connections, kind, health
    asking      a prompt → the fields of the request, by the kind of the server
    reading     a chunk → pieces
    failures    an error of the server → the service's
    routing     which server has a context; the circuit breaker

The only part of the gateway that knows the SDK's client: a relay calls a server as any client does.
"""

from .engine import UpstreamEngine

__all__ = ["UpstreamEngine"]
