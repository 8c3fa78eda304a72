"""The evidence of an attempt: whether the request may have reached the server."""

import attrs

__all__ = ["Evidence"]


@attrs.define(eq=False)
class Evidence:
    """The transport's notes on an attempt, for the caller to read however the attempt ends.

    Attributes:
        begun: whether the attempt has got a slot: from then on the request may be sent at any moment.
        sent: whether the request may have reached the server. Set in a single place, where the body goes to the socket.
        stale: whether the connection was found closed before anything was written.
    """

    begun: bool = False
    sent: bool = False
    stale: bool = False
