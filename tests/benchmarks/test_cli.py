"""The command line, from the outside."""

import json
from pathlib import Path

import pytest

from benchmarks import cli, processes
from benchmarks.cases import Case
from benchmarks.results import Results


def test_a_run_leaves_results_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m benchmarks stream …` measures each client in a process of its own, and writes what it found."""
    file = tmp_path / "a.json"
    typed = ["stream", "--size", "tiny", "--clients", "ctxcache,aiohttp", "--rounds", "2", "--json", str(file)]
    assert cli.main([*typed, "--report", str(tmp_path)]) == 0
    found = Results.read(file)
    assert [(sample["round"], sample["client"]) for sample in found.samples] == [
        (0, "ctxcache"),
        (0, "aiohttp"),
        (1, "ctxcache"),
        (1, "aiohttp"),
    ]
    assert all(sample["figures"]["cpu_us"] > 0 for sample in found.samples)
    assert str(tmp_path) not in file.read_text()
    assert "≤ 2.0× bare aiohttp" in capsys.readouterr().out
    text = (tmp_path / "RESULTS.md").read_text()
    assert "--clients ctxcache,aiohttp" in text
    assert str(tmp_path) not in text

    assert cli.main(["compare", str(file), str(file)]) == 0
    assert "0 of" in capsys.readouterr().out
    (tmp_path / "RESULTS.md").unlink()
    assert cli.main(["report", str(file), str(tmp_path)]) == 0
    assert (tmp_path / "RESULTS.md").read_text() == text


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["no-such"], "no such scenario: no-such"),
        (["--clients", "curl"], "no such client: curl"),
        (["--rounds", "0"], "at least 1"),
    ],
)
def test_bad_usage(typed: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be meant is refused with exit code 2, before anything is measured."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(typed)
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("params", "seconds", "says"),
    [
        ({"chunks": "many", "seconds": 0}, 30, "RuntimeError"),
        ({"chunks": 2, "seconds": 60}, 1.5, "no result within 1.5 s"),
    ],
)
def test_what_fails_is_told(port: int, params: dict[str, object], seconds: float, says: str) -> None:
    """A case that fails, or hangs, has its error as its result, and does not stop the run."""
    found: list[dict[str, object]] = []
    case = Case("broken", params)
    processes.measure("stream", "aiohttp", [case], port, [], seconds=seconds, on_result=found.append)
    assert [result["case"] for result in found] == ["broken"]
    assert says in json.dumps(found[0]["error"])


def test_the_environment_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, base URLs, proxies and coverage of this process reach no client."""
    for name in ("OPENAI_BASE_URL", "HTTPS_PROXY", "no_proxy", "COVERAGE_PROCESS_START", "ARK_API_KEY"):
        monkeypatch.setenv(name, "x")
    assert not {"OPENAI_BASE_URL", "HTTPS_PROXY", "no_proxy", "COVERAGE_PROCESS_START", "ARK_API_KEY"} & set(
        processes.environment()
    )
