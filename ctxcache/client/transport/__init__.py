"""One attempt of one request. The only client room that knows aiohttp: its pool, its time-outs, all its exceptions.

What the floors above rely on:

- *Evidence.* An `APIConnectionError` says in `sent` whether the request may have reached the server. `sent` turns true
  in one place, where the body is handed to the socket (`Body`); before that nothing can have run, since a POST whose
  body never came is no request.
- *Stale connections.* A load balancer closes a kept-alive connection whenever it likes. In that same place, before the
  first byte leaves, the kernel is asked whether the peer has hung up or said something unasked; if so the request is
  not written and may safely go out on a fresh connection. What remains is a close that crosses our request on the
  wire, which nobody can tell from a lost reply: that one is `sent`.
- *One end.* However an exchange ends, it gives back the connection, the slot in the pool and whatever was hung on
  `on_close`, once.
"""

from .body import Evidence
from .exchange import Exchange
from .transport import Transport

__all__ = ["Evidence", "Exchange", "Transport"]
