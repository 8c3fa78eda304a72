"""The pages of `ctxcache/docs`: every block runs, in order, in an empty folder for each page."""

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import ctxcache
import ctxcache.cluster
import ctxcache.gateway
from ctxcache import Cost
from ctxcache.cli.docs import TOPICS, page

from .gateway.engines.llama import conftest as llama
from .managed.redis_server import BINARY, NO_BINARY, redis_server

PAGES = {path.stem: path for path in (Path(ctxcache.__file__).parent / "docs").glob("*.md")}
README = Path(__file__).parents[1] / "README.md"
COST = Cost(calls=100, input=0.9, cached=1.6, output=0.4, storage=0.1, without=8.4, break_even_calls=14)
PATIENCE = 60
OTHERS = ("from-openai", "pydantic-ai", "litellm", "recipes")  # pages with names of other packages
REDIS = "redis://127.0.0.1:6379"  # as pages have it


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


def blocks(topic: str) -> list[Block]:
    """The blocks of a page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page(topic), re.MULTILINE | re.DOTALL)
    return [Block(*block) for block in found]


def _file_name(text: str) -> str:
    """The name that the first line of a block gives to its file, "" if none."""
    named = re.match(r"# (\w+\.py)\n", text)
    return named[1] if named else ""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Reader:
    """Somebody who copies the blocks of a page, one after the other, into one folder.

    A service goes on running while the blocks after it are run; its port is replaced by a free one.
    """

    def __init__(self, folder: Path, redis_url: str, *, strict: bool = True) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._strict = strict  # a warning is an error
        self._ports: dict[str, str] = {}
        self._services: list[subprocess.Popen[str]] = []
        self.output = ""

    def read(self, block: Block, number: int) -> None:
        """Run a block, or compare the output of the one before with what the page shows."""
        if block.language == "text":
            self._compare(block.text)
            return
        text = block.text.replace(REDIS, self._redis_url)
        text = re.sub(r"(?<=port=|port )\d{4}\b|(?<=127\.0\.0\.1:)\d{4}\b", self._port, text)
        if block.language == "sh":
            command = ["bash", "-euc", text]
        else:
            file = self._folder / (_file_name(text) or f"{'test_' if 'def test_' in text else ''}block_{number}.py")
            file.write_text(text, "utf-8")
            testing = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
            strict = ["-W", "error"] if self._strict and "import ray" not in text else []  # Ray warns of itself
            command = [sys.executable, *(testing if "def test_" in text else strict), file.name]
        if re.search(r"web\.run_app\(|uvicorn\.run\(|^ctxcache (serve|proxy)", text, re.MULTILINE):
            self._serve(command)
        else:
            done = subprocess.run(
                command, cwd=self._folder, env=self._environment(), capture_output=True, text=True, timeout=PATIENCE
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            self.output = done.stdout

    def _environment(self) -> dict[str, str]:
        scripts = str(Path(sys.executable).parent)
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTEST_PLUGINS": "ctxcache_pytest"}  # also without its entry point

    def _port(self, found: re.Match[str]) -> str:
        return self._ports.setdefault(found[0], str(free_port()))

    def _serve(self, command: list[str]) -> None:
        self.end()
        service = subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._services.append(service)
        port, end = int(list(self._ports.values())[-1]), time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            assert service.poll() is None, service.communicate()[0]
            assert time.monotonic() < end
            time.sleep(0.02)  # another program's socket tells of itself in no other way

    def _compare(self, expected: str) -> None:
        pattern = re.escape(expected.strip()).replace(r"\.\.\.", "(.|\n)*")
        assert re.fullmatch(pattern, self.output.strip()), self.output

    def end(self) -> None:
        """Stop the services."""
        while self._services:
            service = self._services.pop()
            os.killpg(service.pid, signal.SIGTERM)
            service.communicate(timeout=PATIENCE)


def is_there(block: Block) -> bool:
    """Whether the packages that a block imports, or the program that it runs, are installed."""
    if block.language == "python":
        return all(find_spec(name) for name in re.findall(r"^(?:from|import) (\w+)", block.text, re.MULTILINE))
    return not re.search(r"^llm ", block.text, re.MULTILINE) or shutil.which("llm") is not None


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """The URL of a server, in place of the usual one."""
    if BINARY is None:
        pytest.skip(NO_BINARY)
    with redis_server() as url:
        yield url


@pytest.fixture(scope="module")
def gateway() -> Iterator[dict[str, str]]:
    """A gateway in a process of its own; the two variables by which blocks find it."""
    serve = [sys.executable, "-m", "ctxcache", "serve", "--port", "0", "--pieces-per-second", "0"]
    with subprocess.Popen(
        [*serve, "--first-token-delay", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(2)]
        yield dict(re.findall(r"export (\w+)='?([^'\s]+)", "".join(lines)))
        process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("topic", PAGES)
def test_every_block_runs(
    topic: str, gateway: dict[str, str], request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every block of a page runs as it stands, and prints what the page says."""
    text = "".join(block.text for block in blocks(topic))
    if "uvicorn" in text:
        pytest.importorskip("fastapi")
        pytest.importorskip("uvicorn")
    if "curl" in text and shutil.which("curl") is None:
        pytest.skip("no curl")
    if "gguf" in text:
        (tmp_path / "model.gguf").write_bytes(llama.gguf(("fake.context_length", llama.number(4, 4000))))
        monkeypatch.setenv("PYTHONPATH", str(llama.FAKE))
    for package in ("distributed", "langchain_core", "litellm", "pydantic_ai"):
        if re.search(rf"^\s*(?:from|import) (?:\w+\.)*{package}\b", text, re.MULTILINE):
            pytest.importorskip(package)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else importing LiteLLM asks the network for prices
    redis = request.getfixturevalue("redis_url") if REDIS in text else ""
    reader = Reader(tmp_path, redis, strict=topic != "recipes")
    for name, value in gateway.items():
        monkeypatch.setenv(name, value)
    try:
        there = True
        for number, block in enumerate(blocks(topic)):
            if topic == "recipes":  # a block runs, and its output is compared, where the package is installed
                there = there if block.language == "text" else is_there(block)
            if there and ("import ray" not in block.text or find_spec("ray")):
                reader.read(block, number)
    finally:
        reader.end()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The Python blocks of all pages and of the README, as files."""
    folder = tmp_path_factory.mktemp("programs")
    pages = {**{topic: page(topic) for topic in TOPICS}, "README": README.read_text("utf-8")}
    for topic, text in pages.items():
        for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)):
            (folder / f"{topic.replace('-', '_')}_{number}.py").write_text(block, "utf-8")
    return sorted(folder.iterdir())


def test_blocks_import_only_names_they_use(programs: list[Path]) -> None:
    """No block imports a name, or a module, that the block does not use."""
    assert len(programs) > 20
    for program in programs:
        tree = ast.parse(program.read_text("utf-8"))
        imported = {
            (name.asname or name.name).partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in node.names
        }
        assert imported <= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, program.name


LOST = [ctxcache.ReplyLostError, ctxcache.ReplyTimeoutError, ctxcache.InternalServerError, ctxcache.ProtocolError]


@pytest.mark.parametrize("lost", LOST)
def test_a_call_that_may_have_run_is_told_as_such(programs: list[Path], lost: type[ctxcache.CtxCacheError]) -> None:
    """Wherever a block has a branch for unknown outcomes, a lost reply gets there, not to an earlier branch."""
    found = 0
    for program in programs:
        for node in ast.walk(ast.parse(program.read_text("utf-8"))):
            branches = [ast.unparse(branch.type) for branch in getattr(node, "handlers", []) if branch.type]
            if "OutcomeUnknownError" in branches:
                found += 1
                taken = next(name for name in branches if issubclass(lost, getattr(ctxcache, name)))
                assert taken == "OutcomeUnknownError", program.name
    assert found >= 2


def test_blocks_pass_a_type_checker(programs: list[Path], tmp_path: Path) -> None:
    """A reader's type checker finds nothing in any block, whose functions need no annotations."""
    api = pytest.importorskip("mypy.api")
    options = [
        "--check-untyped-defs",
        "--ignore-missing-imports",
        f"--cache-dir={tmp_path}",
        "--config-file=",
        "--strict-equality",
    ]
    out, err, code = api.run([*options, *map(str, programs)])
    assert (code, err) == (0, ""), out


def test_numbers_have_one_form() -> None:
    """Percentages are written "47%", and prices say that they are per million tokens."""
    texts = {topic: page(topic) for topic in TOPICS} | {"README": README.read_text("utf-8"), "cost": str(COST)}
    for topic, text in texts.items():
        assert not re.search(r"\d\s%", text), topic
        assert "Prices(" not in text or "per million tokens" in text, topic
        assert "--prices" not in text or "per million tokens" in text, topic


def test_every_page_is_a_topic() -> None:
    """The command shows every page of the folder, and no other."""
    assert set(TOPICS) == set(PAGES)
    assert {block.language for topic in TOPICS for block in blocks(topic)} == {"python", "sh", "text"}


@pytest.mark.parametrize("topic", PAGES)
def test_pages_lead_to_pages(topic: str) -> None:
    """A page names only topics that exist."""
    assert set(re.findall(r"ctxcache docs ([\w-]+)", page(topic))) <= set(TOPICS)


def test_names_are_public() -> None:
    """Every class that a page names exists."""
    adapters = (Path(ctxcache.__file__).parent / "integrations").rglob("*.py")  # importing them takes their frameworks
    listed = [re.findall(r"^__all__ = \[(.*?)\]", path.read_text("utf-8"), re.MULTILINE) for path in adapters]
    known = {*ctxcache.__all__, *ctxcache.cluster.__all__, *ctxcache.gateway.__all__}
    known |= {name for names in listed for line in names for name in re.findall(r"\w+", line)}
    for topic in TOPICS:
        prose = re.sub(r"^```.*?^```$", "", page(topic), flags=re.MULTILINE | re.DOTALL)
        for name in re.findall(r"`([A-Z][a-z]\w+)(?:\(|\.|`)", prose):
            assert name in known or topic in OTHERS, (topic, name)
