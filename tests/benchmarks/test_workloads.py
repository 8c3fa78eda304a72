"""The decode scenario's inputs decode to the events they claim, and are what their names say."""

import json
import re

import pytest

from benchmarks.decoders import DECODERS, DONE, essence, expected
from benchmarks.loads import TEXT, data, text_chunk
from benchmarks.run import is_there
from benchmarks.sse_workloads import KIB, WORKLOADS, Workload

SMALL = {"1 MiB line dripped in": (20_000,), "1,000-line data": (2, 100)}


def small(name: str) -> Workload:
    """A workload of the same form, quickly decoded."""
    return WORKLOADS[name](*SMALL.get(name, (40,)))


def by_the_standard(stream: bytes) -> list[str]:
    """The data of a stream's events as the standard tells it, and as slowly."""
    found, data_lines = [], []
    for line in re.split("\r\n|\r|\n", stream.decode())[:-1]:
        if not line:
            if data_lines:
                found.append("\n".join(data_lines))
            data_lines = []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            assert field == "data"
            data_lines.append(value.removeprefix(" "))
    return found


@pytest.mark.parametrize("name", WORKLOADS)
def test_input_is_what_it_claims(name: str) -> None:
    """The bytes of a workload are a stream of the events it claims, by an interpreter that shares no code with any."""
    workload = WORKLOADS[name]()
    assert workload.name == name
    assert by_the_standard(b"".join(workload.parts)) == list(workload.data)
    assert workload.data[-1] == DONE
    assert all(json.loads(one)["object"] == "chat.completion.chunk" for one in workload.data[:-1])


@pytest.mark.parametrize(("output", "client"), [(output, client) for output in DECODERS for client in DECODERS[output]])
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.filterwarnings("ignore")  # what the peers' imports warn of is not ours
def test_decoders_agree(name: str, client: str, output: str) -> None:
    """Every decoder makes of a workload what it claims: what is compared is equal."""
    if not is_there(client):
        pytest.skip("not installed")
    workload = small(name)
    assert list(map(essence, DECODERS[output][client](workload.parts))) == expected(output, workload.data)


def test_essence_tells_chunks_apart() -> None:
    """What is compared of a chunk is its id, text, finish reason and tokens, as far as it has them."""
    workload = small("token stream")
    found = expected("chunks", workload.data)
    assert len(found) == len(workload.data) - 1
    assert found[0][1] == " context"
    assert found[-2][2] == "stop"
    assert found[-1][1:] == (None, None, 2560)


def test_names_are_true() -> None:
    """Each workload has the shape its name says."""
    made = {name: make() for name, make in WORKLOADS.items()}
    assert max(map(len, made["tiny reads"].parts)) == 7
    assert b"".join(made["heartbeats"].parts).count(b"\n:") >= 5000
    crlf = b"".join(made["CRLF"].parts)
    assert crlf.count(b"\r\n") == crlf.count(b"\n") == crlf.count(b"\r") > 0
    assert any(cuts_a_character(part) for part in made["multi-byte text"].parts)
    assert len(made["1 MiB line dripped in"].data[0]) >= KIB * KIB
    assert "\n" not in made["1 MiB line dripped in"].data[0]
    assert {one.count("\n") + 1 for one in made["1,000-line data"].data[:-1]} == {1000}


def cuts_a_character(part: bytes) -> bool:
    """Whether a read ends within a character."""
    try:
        part.decode()
    except UnicodeDecodeError:
        return True
    return False


def test_chunk_is_as_large_as_the_services() -> None:
    """A chunk of the load has about 290 bytes."""
    assert 280 <= len(data(text_chunk(TEXT))) <= 300
