"""The README's blocks, run as they stand."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ctxcache
from ctxcache import Prices, PromptTokensDetails, Usage
from ctxcache.managed.costs import Ledger

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_run(block: str) -> None:
    """Every Python block runs as it stands, in a fresh interpreter, and warns of nothing."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_streaming_example_says_something() -> None:
    """The first example prints an answer, and how it ended."""
    done = subprocess.run([sys.executable, "-c", blocks("python")[0]], capture_output=True, text=True, timeout=60)
    answer, _, reason = done.stdout.rpartition("\nfinish reason: ")
    assert len(answer) > 40
    assert reason == "stop\n"


def test_there_are_exactly_two_set_up_commands() -> None:
    """One line each: the first ends in the demo, the second in pytest."""
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("python3 -m venv")]
    assert [command.split("/")[-1] for command in commands] == ["ctxcache demo", "pytest"]


def test_every_command_shown_exists() -> None:
    """The CLI knows each command and option that the README shows."""
    shown = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("ctxcache ")]
    assert len(shown) >= 4
    for line in shown:
        words = shlex.split(line, comments=True)[1:]
        options = [word for word in words if word.startswith("--")]
        done = subprocess.run(
            [sys.executable, "-m", "ctxcache", words[0], "--help"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0
        assert [option for option in options if option not in done.stdout] == []


def test_every_error_is_in_the_table() -> None:
    """The README names every class of the tree, except those that only say where a parent came from."""
    missing = {name for name in ctxcache.errors.__all__ if f"`{name}`" not in README}
    assert missing <= {"CtxCacheError", "APIStatusError", "EventTooLargeError"}


def test_every_parameter_is_in_the_tables() -> None:
    """Every parameter of both endpoints stands in the README."""
    from ctxcache import ChatOptions

    for name in [*ChatOptions.__required_keys__, *ChatOptions.__optional_keys__, "ttl", "mode", "truncation_strategy"]:
        assert f"`{name}`" in README, name


def test_links_lead_somewhere() -> None:
    """Links to files of the repository are not broken."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_links_of_a_release(tmp_path: Path) -> None:
    """A release's README has absolute links only, and its metadata say where the source is."""
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_text((REPOSITORY / name).read_text("utf-8"), "utf-8")
    url = "https://forge.example/ctxcache"
    subprocess.run([sys.executable, REPOSITORY / ".ci" / "links.py", tmp_path, url], check=True)
    links = re.findall(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"", (tmp_path / "README.md").read_text("utf-8"))
    assert links
    assert [link for link in links if not "".join(link).startswith("https://")] == []
    urls = tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))["project"]["urls"]
    assert urls["Source"] == url


def test_the_bill() -> None:
    """The bill at the top is what `Prefix.cost` would say of those calls at the prices stated above it."""
    found = re.search(
        r"([\d.]+) for input,\s+([\d.]+) for\s+cached input, ([\d.]+) for output,\s+and ([\d.]+) an hour for storage",
        README,
    )
    assert found
    prices = Prices(*map(float, found.groups()))
    ledger = Ledger()
    ledger.created("ctx-1", usage(30_000), 0, 3600)
    for _ in range(5000):
        ledger.used("ctx-1", usage(30_050, 30_000, 150), 1800)
    cost = ledger.cost(prices, now=7200)
    whole, answers = 5000 * 30_000 * prices.input / 1e6, cost.output
    rows = re.findall(r"^\| .*? \| \**([\d.]+)\** \| \**([\d.]+)\** \|$", README, re.MULTILINE)
    assert rows == [
        (f"{whole:.2f}", f"{cost.cached:.2f}"),
        (f"{cost.without - whole - answers:.2f}", f"{cost.input + cost.storage:.2f}"),
        (f"{answers:.2f}", f"{answers:.2f}"),
        (f"{cost.without:.2f}", f"{cost.total:.2f}"),
    ]


def usage(prompt: int, cached: int = 0, completion: int = 0) -> Usage:
    """The usage of one call."""
    details = PromptTokensDetails(cached_tokens=cached)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, prompt_tokens_details=details)


@pytest.mark.parametrize("block", blocks("python"))
def test_no_import_is_unused(block: str) -> None:
    """A block imports only names that it uses."""
    tree = ast.parse(block)
    imported = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported <= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
