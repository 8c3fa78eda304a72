"""The relays and the load client before them: what is relayed is counted right, and nothing outlives a measurement."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from benchmarks import loads, relays
from benchmarks.accounting import ProcessGroup
from benchmarks.processes import ROOT, environment
from benchmarks.relays.reading import Readers, first_chunk
from benchmarks.relays.running import question, relay

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked at as on Linux")


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def exists(process: int) -> bool:
    """Whether the process runs; one that has ended and was not asked for its code does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answering(parts: Iterable[bytes]) -> tuple[int, threading.Thread]:
    """Serve one connection with these writes, each of which a reader may see for itself; then close it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listening, listening.accept()[0] as accepted:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            accepted.recv(65536)
            for part in parts:
                accepted.sendall(part)

    thread = threading.Thread(target=serve)
    thread.start()
    return listening.getsockname()[1], thread


# --- the load client --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_counted_however_they_are_cut(size: int) -> None:
    """Every event of a stream counts once, and its end is seen, wherever the reads end."""
    stream = loads.whole_answer(9, 5)
    head = len(loads.STREAM_HEAD)
    parts = [stream[:head], *(stream[at : at + size] for at in range(head, len(stream), size))]
    port, thread = answering(parts)
    with Readers(port) as readers:
        readers.ask(question(port, model="any"))
        assert readers.read(20, lambda: readers.ended == 1)
        assert readers.events == 10  # with the end mark
    thread.join()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([loads.answer(b'{"error":{"code":"NotFound"}}', "404 Not Found")], 'no answer: HTTP/1.1 404 .*"NotFound"'),
        ([loads.STREAM_HEAD, loads.stream_text()], "the stream broke off"),
        ([], "the stream broke off"),
    ],
)
def test_no_error_is_measured_as_an_answer(parts: list[bytes], says: str) -> None:
    """A refusal and a stream that breaks off are errors."""
    port, thread = answering(parts)
    with pytest.raises(RuntimeError, match=f"(?s){says}"):
        first_chunk(port, question(port, model="any"))
    thread.join()


# --- the relays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", relays.NAMES)
def test_relays_bring_the_same_chunks(port: int, name: str) -> None:
    """Each relay brings a client the text of every chunk, and its processes' CPU and memory can be told."""
    if not relays.installed(name):
        pytest.skip("not installed")
    load = loads.whole(20)
    with relay(name, port, [load]) as running:
        before = running.processes.cpu_seconds()
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as asking:
            asking.sendall(running.question(load))
            response = http.client.HTTPResponse(asking)
            response.begin()
            lines = response.read().split(b"\n")
        assert running.processes.cpu_seconds() > before
        assert running.processes.rss_kb() > 1000
    events = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    assert events.pop() == b"[DONE]"
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert [delta["content"] for delta in deltas if delta.get("content")] == [loads.words(loads.TEXT)] * 18


def test_a_relay_ends_with_all_its_processes(port: int) -> None:
    """After the measurement no process of the relay is left."""
    with relay("aiohttp", port, []) as running:
        leaders = [process for process in running.processes.ids() if exists(process)]
        assert leaders
    assert not [process for process in leaders if exists(process)]


def test_a_relay_ends_with_a_worker_that_is_killed(port: int) -> None:
    """A worker that takes too long is killed; its relay is not left behind."""
    program = f"""
import sys, time
sys.path.append({str(ROOT)!r})
from benchmarks.relays.running import relay
with relay("aiohttp", {port}, []) as running:
    print(*running.processes.ids(), flush=True)
    time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment()
    ) as worker:
        assert worker.stdout is not None
        processes = [int(process) for process in worker.stdout.readline().split()]
        assert processes
        worker.kill()
    until(lambda: not any(map(exists, processes)))


def test_what_a_relay_said_is_told(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that does not start is an error with the last words of its output."""
    broken = relays.Relay(lambda _: [sys.executable, "-c", "raise SystemExit('no port for me')"], "sys")
    monkeypatch.setattr("benchmarks.relays.running.find", lambda _: broken)
    with pytest.raises(RuntimeError, match="it said: no port for me"), relay("broken", port, []):
        pytest.fail("it never ran")


def test_cpu_of_a_processes_children_counts() -> None:
    """The CPU of a session is that of all its processes."""
    child = """
import time
while time.process_time() < 0.2: pass
print(flush=True)
input()
"""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        group = ProcessGroup(leader.pid)
        assert len(group.ids()) == 2
        assert group.cpu_seconds() >= 0.2
        os.killpg(leader.pid, signal.SIGKILL)
