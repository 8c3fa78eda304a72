"""The load client before a relay: raw sockets, read by one thread that counts events and throws their bytes away."""

import selectors
import socket
import time
from collections.abc import Callable
from typing import Final, Self

__all__ = ["Readers", "first_chunk"]

_PATIENCE: Final = 60.0
_READ: Final = 256 * 1024
_POLL: Final = 0.02
_OK: Final = b"HTTP/1.1 200"
_EVENT_END: Final = b"\n\n"
_BODY_END: Final = b"\r\n0\r\n\r\n"  # of HTTP's chunked encoding


class Reader:
    """One stream, asked for on a connection of its own.

    Attributes:
        ended: whether the stream was read to its end.

    Raises:
        RuntimeError: from `read`, for an answer that is no success, or breaks off.
    """

    def __init__(self, port: int, question: bytes) -> None:
        self.ended = False
        self._tail = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self.socket.sendall(question)

    def read(self) -> int:
        """Read what has come, at least a byte; return how many events ended in it."""
        data = self.socket.recv(_READ)
        if not data:
            raise RuntimeError("the stream broke off")
        if not self._tail and not data.startswith(_OK):
            raise RuntimeError(f"no answer: {data[:300].decode(errors='replace')}")
        overlap = len(self._tail)
        data = self._tail + data
        self._tail = data[-len(_BODY_END) :]
        self.ended = self._tail == _BODY_END
        return data.count(_EVENT_END, max(0, overlap - 1))

    def close(self) -> None:
        self.socket.close()


def first_chunk(port: int, question: bytes) -> float:
    """Read a stream to its end; return the seconds from the request until the first event was read."""
    began, first = time.perf_counter(), 0.0
    reader = Reader(port, question)
    try:
        while not reader.ended:
            if reader.read() and not first:
                first = time.perf_counter() - began
    finally:
        reader.close()
    return first


class Readers:
    """Many streams at once, used as `with`: the end of the block closes those still open.

    Attributes:
        events: events read so far, of all streams.
        ended: streams read to their end.
    """

    def __init__(self, port: int) -> None:
        self.events = self.ended = 0
        self._port = port
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for key in tuple(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()

    def ask(self, question: bytes) -> None:
        """Open one more stream."""
        reader = Reader(self._port, question)
        self._selector.register(reader.socket, selectors.EVENT_READ, reader)

    def read(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Read for so long, or until there is enough; return whether there is."""
        deadline = time.monotonic() + seconds
        while not enough():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(min(left, _POLL)):
                reader: Reader = key.data
                self.events += reader.read()
                if reader.ended:
                    self._selector.unregister(reader.socket)
                    reader.close()
                    self.ended += 1
        return True
