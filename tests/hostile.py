"""A hostile HTTP server on a real socket: it counts what it receives and answers as scripted, byte by byte.

A script answers one request. It is a list of steps: bytes are sent as they are, anything else is called with the
connection (`CLOSE`, `RESET`, `STALL`, `after(event)`, `trickle(…)`). When a script is at its end, the connection stays
open for the next request::

    hostile.plays([answer(COMPLETION)], [SSE, *pieces(chunk("Hel")), RESET])
    hostile.plays([early, CLOSE])          # played at the head of the request, its body unread
    hostile.greets([CLOSE])                # played when a connection comes, before anything is read

Scripts are played in the order in which requests come. A request without one is answered with 418, and shows in `posts`
like any other: a test that counts them cannot miss it.
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Self

CREATE: dict[str, Any] = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}]}
CHAT: dict[str, Any] = {"context_id": "ctx-1", "model": "m", "messages": [{"role": "user", "content": "Hello"}]}

CONTEXT = {"id": "ctx-1", "mode": "session", "ttl": 3600, "model": "m"}
COMPLETION = {"id": "c-1", "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}

# --- what to send -----------------------------------------------------------------------------------------------------


def head(*headers: str, status: str = "200 OK") -> bytes:
    """The head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def answer(body: Any = COMPLETION, *headers: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """A whole answer; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(f"Content-Type: {kind}", f"Content-Length: {len(data)}", *headers, status=status) + data


def refusal(status: int, code: str = "", message: str = "no", *headers: str, **fields: Any) -> bytes:
    """An answer with the service's error envelope."""
    return answer({"error": {"code": code, "message": message, **fields}}, *headers, status=f"{status} No")


def event(data: Any, *lines: str) -> bytes:
    """One server-sent event; data that is not bytes is sent as JSON."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return b"".join(line.encode() + b"\n" for line in lines) + b"data: " + data + b"\n\n"


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **fields: Any) -> bytes:
    """The event of one `chat.completion.chunk`."""
    delta = {} if text is None else {"content": text}
    return event({"id": "c-1", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **fields})


def piece(data: bytes) -> bytes:
    """One chunk of chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def pieces(*events: bytes) -> list[bytes]:
    """Events, each in a chunk of chunked encoding."""
    return [piece(data) for data in events]


DONE = event(b"[DONE]")
END = b"0\r\n\r\n"
SSE = head("Content-Type: text/event-stream", "Transfer-Encoding: chunked", "X-Request-Id: req-1", "X-Tt-Logid: log-1")
SSE_TO_EOF = head(
    "Content-Type: text/event-stream", "Connection: close"
)  # the end of the body is that of the connection
STORY = (chunk("Once"), chunk(" upon", model="m"), chunk(" a time", finish="stop"), DONE)
STORY_TEXT = "Once upon a time"


def streamed(*events: bytes) -> bytes:
    """A whole streamed answer."""
    return SSE + b"".join(pieces(*(events or STORY))) + END


# --- what to do -------------------------------------------------------------------------------------------------------

Step = bytes | Callable[["Connection"], Awaitable[None]]


async def CLOSE(connection: "Connection") -> None:  # noqa: N802  # a step, in capitals to stand out in scripts
    """Close the connection properly."""
    connection.writer.close()
    raise ConnectionAbortedError


async def RESET(connection: "Connection") -> None:  # noqa: N802
    """Close the connection with a TCP reset; bytes that were sent and not yet read are lost with it."""
    linger = struct.pack("ii", 1, 0)
    connection.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.writer.transport.abort()
    raise ConnectionAbortedError


async def STALL(connection: "Connection") -> None:  # noqa: N802
    """Do nothing until `hostile.released` is set."""
    await connection.server.released.wait()


def early(connection: "Connection") -> Awaitable[None]:
    """As a first step: play the script when the head of the request came, and leave its body unread."""
    return asyncio.sleep(0)


def after(happening: asyncio.Event) -> Step:
    """Wait for an event of the test."""

    async def wait(_: "Connection") -> None:
        await happening.wait()

    return wait


def sets(happening: asyncio.Event) -> Step:
    """Tell the test that the script got here."""

    async def tell(_: "Connection") -> None:
        happening.set()

    return tell


def sleep(seconds: float) -> Step:
    """Wait a little, so that what was sent before arrives alone."""
    return lambda _: asyncio.sleep(seconds)


def turns(count: int) -> Step:
    """Let the event loop turn so many times, so that what was sent before arrives alone."""

    async def wait(_: "Connection") -> None:
        for _turn in range(count):
            await asyncio.sleep(0)

    return wait


def trickle(data: Iterable[bytes], every: float = 0.005) -> Step:
    """Send one item after the other, slowly (bytes: byte by byte)."""

    async def send(connection: "Connection") -> None:
        for item in data:
            connection.writer.write(item if isinstance(item, bytes) else bytes([item]))
            await connection.writer.drain()
            await asyncio.sleep(every)

    return send


# --- the server -------------------------------------------------------------------------------------------------------


class Received:
    """One request, whole."""

    def __init__(self, head: bytes, body: bytes, connection: "Connection") -> None:
        first, *lines = head.decode().rstrip().split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.body = body
        self.connection = connection

    @property
    def json(self) -> Any:
        """Its body as Python data."""
        return json.loads(self.body)


class Connection:
    """One connection, and the task that serves it."""

    def __init__(self, server: "Hostile", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.idle = True

    @contextlib.contextmanager
    def raw_socket(self) -> Iterator[socket.socket]:
        """Lend a socket that acts on the connection at once, past the event loop."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as raw:
            yield raw

    def shut_down(self) -> None:
        """Close the connection in both directions; the kernel knows before this returns, the event loop later."""
        with self.raw_socket() as raw:
            raw.shutdown(socket.SHUT_RDWR)

    @property
    def gone(self) -> bool:
        """Whether either side has closed it."""
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    async def serve(self) -> None:
        """Read requests and play their scripts."""
        try:
            if self.server.greetings:
                await self.play(self.server.greetings.popleft())
            while True:
                await self._serve_one()
        except OSError:  # IncompleteReadError is an EOFError
            pass
        except EOFError as error:
            self.server.fragments += bool(error.partial)
        finally:
            self.writer.close()

    async def _serve_one(self) -> None:
        request = await self.reader.readuntil(b"\r\n\r\n")
        self.idle = False
        received = Received(request, b"", self)
        scripts = self.server.scripts
        if scripts and early in scripts[0]:
            self.server.heads.append(received)
            await self.play(scripts.popleft())
            return
        received.body = await self.reader.readexactly(int(received.headers.get("content-length", 0)))
        self.server.posts.append(received)
        await self.play(scripts.popleft() if scripts else [refusal(418, message="not in the script")])
        self.idle = True

    async def play(self, script: Iterable[Step]) -> None:
        """Do the steps of a script."""
        for step in script:
            if isinstance(step, bytes):
                self.writer.write(step)
                await self.writer.drain()
            else:
                await step(self)


class Hostile:
    """The server.

    Attributes:
        posts: the requests that came whole, in order.
        heads: those answered early, without their bodies.
        fragments: connections that closed in the middle of a request.
        connections: all that ever came.
        released: ends every `STALL`.
    """

    def __init__(self, ssl: Any = None) -> None:
        self.scripts: deque[list[Step]] = deque()
        self.greetings: deque[list[Step]] = deque()
        self.posts: list[Received] = []
        self.heads: list[Received] = []
        self.fragments = 0
        self.connections: list[Connection] = []
        self.released = asyncio.Event()
        self._ssl = ssl
        self._tasks: set[asyncio.Task[None]] = set()

    def plays(self, *scripts: list[Step]) -> Self:
        """Add scripts, one for each request to come."""
        self.scripts.extend(scripts)
        return self

    def greets(self, *scripts: list[Step]) -> Self:
        """Add scripts, one for each connection to come, played before anything is read."""
        self.greetings.extend(scripts)
        return self

    @property
    def open(self) -> list[Connection]:
        """The connections that neither side has closed."""
        return [connection for connection in self.connections if not connection.gone]

    @property
    def url(self) -> str:
        """The base URL of its `/v1`."""
        return f"{'https' if self._ssl else 'http'}://127.0.0.1:{self.port}/v1"

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the loop run until the condition holds; fail if it does not within seconds."""
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # what is waited for is in other hands
                await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=2**24, ssl=self._ssl, backlog=2000
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections.append(connection)
        task = asyncio.ensure_future(connection.serve())
        self._tasks.add(task)
