"""What is known of an attempt: whether the request may have reached the server."""

import attrs

__all__ = ["Evidence"]


@attrs.define(eq=False)
class Evidence:
    """Notes that the transport keeps during an attempt; the caller made them and reads them however the attempt ends.

    Attributes:
        begun: whether the attempt has got its slot: from then on the request may be sent at any moment.
        sent: whether the request may have reached the server. Set in one place, where the body is handed to the socket.
        stale: whether the connection was found closed before anything was written.
    """

    begun: bool = False
    sent: bool = False
    stale: bool = False
