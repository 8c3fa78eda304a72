"""The gateway's rules. Pure: clock and randomness are parameters.

::

    answers     the JSON of the answers
    table       all contexts of a gateway: ids, ttl, busy sessions
    served      a context in memory, and an accepted chat: what is stored of a turn
    records     a context as a state keeps it
    window      the context window and the strategies that truncate
    reply       one reply: stop strings, the token limit
    sizes       the tokens and the memory of messages
    quota       how much the contexts of one owner may take
    tokens      how tokens are counted
    json_items  how many values a JSON text holds
    allowed_hosts  the names by which a client may call the gateway
    refusals    every error, in the service's words
"""
