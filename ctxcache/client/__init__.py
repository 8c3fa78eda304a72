"""One call, from the session to the socket.

Floors, from the top; a file imports from lower floors only::

    session       AsyncSession: key, base URL, settings, one event loop
    resources/    one file an endpoint: context, chat
    stream        ChatStream: a streamed answer
    calls         a call's life: attempts, pauses, ids, its log line
    transport/    one attempt over aiohttp, the pool     queues, hooks    who is next on a context; who is told
    slots         waiting in line
"""
