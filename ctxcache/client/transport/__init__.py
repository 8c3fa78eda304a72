"""A single attempt to send a request. The only client folder that knows aiohttp: pool, time-outs, exceptions.

Floors, from the top::

    transport             Transport: the connections, and an attempt over a connection
    body    exchange      the request on the way out; the answer on the way in
    head_timeouts  failures  evidence

What the floors above rely on:

- *Evidence.* An `APIConnectionError` says in `sent` whether the request may have reached the server. `sent` turns true
  in a single place, where the body is handed to the socket (`Body`). Before that nothing can have run: a POST without
  the body is no request.
- *Stale connections.* A load balancer may close a kept-alive connection at any time. In that same place, before the
  first byte leaves, the kernel is asked whether the peer has hung up or sent anything unasked; if so, the request is
  not written and may safely go out on a fresh connection. A close may still cross the request on the wire, and looks
  like a lost reply, so the request counts as `sent`.
- *A single end.* However an exchange ends, the connection and the slot in the pool are given back once, and `on_close`
  is called once.

The modules that import aiohttp are imported when a session first connects: aiohttp costs more to import than the rest
of the package.
"""
