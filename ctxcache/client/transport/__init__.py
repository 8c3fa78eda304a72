"""One attempt of one request. The only client room that knows aiohttp: its pool, its time-outs, all its exceptions.

Floors, from the top::

    transport             Transport: the connections, and one attempt over one of them
    body    exchange      the request on its way out; the answer on its way in
    head_timeouts  failures  evidence

What the floors above rely on:

- *Evidence.* An `APIConnectionError` says in `sent` whether the request may have reached the server. `sent` turns true
  in one place, where the body is handed to the socket (`Body`). Before that nothing can have run: a POST without its
  body is no request.
- *Stale connections.* A load balancer closes a kept-alive connection whenever it likes. In that same place, before the
  first byte leaves, the kernel is asked whether the peer has hung up or said something unasked; if so, the request is
  not written and may safely go out on a fresh connection. What remains is a close that crosses the request on the
  wire; nobody can tell that from a lost reply, so the request counts as `sent`.
- *One end.* However an exchange ends, the connection, the slot in the pool and `on_close` are given back once.

`transport` and its neighbours are imported where a session first connects: aiohttp costs more to import than the rest
of the package.
"""
