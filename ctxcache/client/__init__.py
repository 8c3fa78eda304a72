"""One call, from the session to the socket.

Floors, from the top; a file imports from lower floors only::

    session        AsyncSession: key, base URL, settings, one event loop
    resources/     one file an endpoint: context, chat
    stream         ChatStream: a streamed answer
    calls          Calls: waits, attempts and retries of all calls
    call           Call: one call's attempts, times, errors and end
    transport/     one attempt over aiohttp, the pool
    queues, hooks  whose turn it is on a context; who hears of events
    slots          waiting in line
    cancellation   ending another task's wait
    environment    clocks, sleep, randomness
"""
