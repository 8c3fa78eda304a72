"""The gateway's rules. Pure: clock and randomness are parameters.

::

    answers     the JSON of the answers
    table       all contexts of a gateway, and what may be done with them: ids, ttl, busy, what is stored
    window      the context window and its strategies
    reply       one reply: stop strings, the most tokens
    tokens      what a token is here
    refusals    every error, in the service's words
"""
