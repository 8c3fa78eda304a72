"""The pytest plugin, in runs of pytest of their own."""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

SERVICE = '''
import os
from ctxcache import AsyncSession, system

async def answer(question, session=None):
    """Ask a session made as a service would: from the environment."""
    async with AsyncSession() as session:
        context = await session.context.create(model="Doubao-1.5-pro-32k", messages=[system("The manual.")], ttl=3600)
        chat = await session.chat.create(context_id=context.id, model="Doubao-1.5-pro-32k",
                                         messages=[{"role": "user", "content": question}])
        return chat.text
'''
TESTS = """
import asyncio, os
import pytest
from ctxcache import ContextGoneError, system, user
from service import answer

class Echo:
    async def generate(self, prompt):
        yield "echo: " + prompt.question[-1].text

pytestmark = [pytest.mark.ctxcache(engine=Echo), *MARKS]
MODEL = "Doubao-1.5-pro-32k"

async def test_service(ctxcache_gateway):
    assert await answer("Hello") == "echo: Hello"
    ctxcache_gateway.assert_one_context()
    ctxcache_gateway.assert_resilient()

async def test_session(ctxcache_session, ctxcache_clock):
    context = await ctxcache_session.context.create(model=MODEL, messages=[system("x")], ttl=3600)
    ctxcache_clock.advance(3601)
    with pytest.raises(ContextGoneError):
        await ctxcache_session.chat.create(context_id=context.id, model=MODEL, messages=[user("x")])

@pytest.mark.ctxcache(engine=Echo(), models=["mine"])
def test_sync(ctxcache_gateway):
    assert os.environ["CTXCACHE_BASE_URL"] == ctxcache_gateway.base_url
    assert os.environ["CTXCACHE_API_KEY"] == ctxcache_gateway.api_key
    with pytest.raises(Exception, match="does not exist"):
        asyncio.run(answer("Hello"))
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run pytest in a process of its own, with the plugin; what is not closed is an error."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG", "PYTEST_ADDOPTS", "PYTHONSAFEPATH"):
        monkeypatch.delenv(name, raising=False)

    def run_pytest(*options: str) -> pytest.RunResult:
        plugin = ["-p", "ctxcache_pytest"]  # as pytest does by itself where the package is installed
        strict = ["-W", "error::ResourceWarning", "-W", "error::pytest.PytestUnraisableExceptionWarning"]
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *strict, *plugin, *options, timeout=100)

    return run_pytest


def write(pytester: pytest.Pytester, marks: str) -> None:
    """Write a service and tests of it."""
    pytester.makepyfile(service=SERVICE, test_service=TESTS.replace("MARKS", marks))


def test_pytest_loads_the_plugin() -> None:
    """The installed package names the plugin to pytest."""
    points = importlib.metadata.entry_points(group="pytest11", name="ctxcache_pytest")
    assert [point.value for point in points] == ["ctxcache_pytest"]


@pytest.mark.parametrize(
    ("marks", "options"),
    [
        ("[]", ["-o", "asyncio_mode=auto"]),
        ("[pytest.mark.asyncio]", ["-o", "asyncio_mode=strict"]),
        ("[pytest.mark.anyio]", ["-p", "no:asyncio"]),
        ("[]", ["-o", "asyncio_mode=auto", "-n", "2"]),
    ],
    ids=["auto", "strict", "anyio", "xdist"],
)
def test_the_fixtures(pytester: pytest.Pytester, run: Any, marks: str, options: list[str]) -> None:
    """A service that reads the environment is tested without a change, under each plugin for async tests."""
    if "-n" in options:
        pytest.importorskip("xdist")
    if "anyio" in marks:
        pytest.importorskip("anyio")
        pytester.makeconftest("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    write(pytester, marks)
    run(*options).assert_outcomes(passed=3)


def test_nothing_is_imported_unless_a_fixture_is_used(pytester: pytest.Pytester, run: Any) -> None:
    """A run without the fixtures imports no module of ctxcache beside the plugin."""
    pytester.makepyfile("""
        import sys

        def test_imports():
            assert [name for name in sys.modules if name.startswith("ctxcache")] == ["ctxcache_pytest"]
    """)
    run().assert_outcomes(passed=1)


def test_coverage_is_not_spoilt(pytester: pytest.Pytester, run: Any, tmp_path: Path) -> None:
    """Coverage sees the first line of the package, although the plugin was loaded before coverage began."""
    pytester.makepyfile("def test_import():\n    import ctxcache\n    import ctxcache.testing\n")
    report = tmp_path / "report.json"
    run("--cov=ctxcache", f"--cov-report=json:{report}", "-o", "asyncio_mode=auto").assert_outcomes(passed=1)
    files = json.loads(report.read_text("utf-8"))["files"]
    for name in ("ctxcache/__init__.py", "ctxcache/testing/__init__.py", "ctxcache/config.py"):
        (found,) = (data for path, data in files.items() if path.endswith(name))
        missing = [line for line in found["missing_lines"] if line < 40]
        assert (name, missing) == (name, [])


def test_an_unknown_setting_of_the_mark(pytester: pytest.Pytester, run: Any) -> None:
    """The mark takes the settings of a gateway; another one is an error that names it."""
    pytester.makepyfile("""
        import pytest

        @pytest.mark.ctxcache(motor=1)
        def test_x(ctxcache_gateway):
            pass
    """)
    result = run("--strict-markers")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*motor*"])
