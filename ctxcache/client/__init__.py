"""A call, from the session to the socket.

Floors, from the top; a file imports from lower floors only::

    session        AsyncSession: key, base URL, settings, event loop
    resources/     a file for each endpoint: context, chat
    stream         ChatStream: a streamed answer
    calls          Calls: waits, attempts and retries of all calls
    call           Call: attempts, times, errors and end of a call
    transport/     an attempt over aiohttp, the pool
    queues, hooks  turns on a context; functions called on events
    slots          waiting in line
    cancellation   the end of another task's wait
    environment    clocks, sleep, randomness
    streamed_answer  what all streams have in common: to be read whole, or relayed as server-sent events
    stream_state   where a stream stands
"""
