"""ceiling: how fast the server serves a reader that does next to nothing. No client is to come near it."""

import contextlib
import json
import selectors
import socket
import time

from .. import loads
from ..accounting import Meter
from ..cases import Case, Metric, Sample, Scenario, Size
from ..clients import CONTEXT, PROMPT

RAW = "raw socket"
_READ = 1024 * 1024
_STREAMS = 300
_RATE = 1000  # chunks a second of one stream: more than the server can send, in all


def cases(size: Size) -> list[Case]:
    return [Case(name, {"work": name, "seconds": size.seconds}) for name in ("whole", "paced", "plain")]


def request(load: str) -> bytes:
    """The bytes of a request for a load."""
    body = json.dumps({"context_id": CONTEXT, "model": load, "messages": [{"role": "user", "content": PROMPT}]})
    head = f"POST /v1/context/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return f"{head}{body}".encode()


async def measure(client_name: str, port: int, case: Case) -> Sample:
    work, seconds = case.params["work"], case.params["seconds"]
    with Meter(port) as meter:
        if work == "whole":
            read_answers(port, loads.whole(), len(loads.whole_answer(2000, loads.TEXT)), seconds)
        elif work == "plain":
            read_answers(port, loads.plain(), len(loads.plain_answer(400)), seconds)
        else:
            read_paced(port, loads.paced(_RATE), seconds)
    count = meter.server["requests" if work == "plain" else "chunks"]
    figures = {
        "rate": count / meter.wall,
        "cpu_us": meter.cpu / count * 1e6,
        "server_share": meter.server["share"] * 100,
    }
    return Sample(figures, meter.server)  # without flags: the server is to be busy here


def read_answers(port: int, load: str, size: int, seconds: float) -> None:
    """Ask and read to the end, over and over, on one connection."""
    end = time.monotonic() + seconds
    buffer, question = bytearray(_READ), request(load)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as asking:
        while time.monotonic() < end:
            asking.sendall(question)
            left = size
            while left:
                left -= asking.recv_into(buffer, min(_READ, left))


def read_paced(port: int, load: str, seconds: float) -> None:
    """Read many streams whose pace the server cannot hold, so that it sends as fast as it can, one write a chunk."""
    end = time.monotonic() + seconds
    buffer = bytearray(_READ)
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(_STREAMS):
            asking = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            asking.sendall(request(load))
            selector.register(asking, selectors.EVENT_READ, asking.recv_into)
        while time.monotonic() < end:
            for key, _ in selector.select():
                key.data(buffer)


SCENARIO = Scenario(
    "ceiling",
    "The server's ceiling",
    "A blocking socket that reads and throws away. `whole`: chunks of 2,000-chunk answers; `paced`: chunks written one "
    f"by one, over {_STREAMS} streams, as fast as the server can; `plain`: calls, one at a time.",
    (RAW,),
    cases,
    measure,
    (
        Metric("rate", "chunks or calls a second", "/s", more=True),
        Metric("server_share", "the server's share of a core", "%"),
        Metric("cpu_us", "the reader's CPU each", "µs"),
    ),
)
