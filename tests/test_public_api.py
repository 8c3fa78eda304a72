"""The public names, against drift."""

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import ctxcache
from ctxcache import errors
from ctxcache.client.resources.chat import ChatEndpoint
from ctxcache.client.resources.context import ContextEndpoint
from ctxcache.client.session import AsyncSession
from ctxcache.config import Limits, Retry, Timeouts

NAMES = """
    Answer APIConnectionError APIStatusError APITimeoutError assistant AssistantMessage AsyncSession
    AuthenticationError BadRequestError CallEvent ChatCompletion ChatCompletionChunk ChatStream Choice ChoiceDelta
    ChunkChoice CompletionTokensDetails Context ContextBusyError ContextGoneError Conversation Cost CreateEvent
    CtxCacheError EventTooLargeError Hooks InternalServerError InvalidInputError Limits MalformedStreamError
    ManagedStream Map MemoryStore Message MessageLike NotFoundError OutcomeUnknownError PermissionDeniedError Prefix
    Prices PromptTokensDetails ProtocolError QuotaExceededError RateLimitError RecreateEvent RedisStore Retry
    RetryEvent SessionError SQLiteStore Store StoredContext StreamInterruptedError system Timeouts TranscriptTurn
    TruncationStrategy TurnInDoubtError UNSET Unset Usage user __version__ WarningEvent
    ReplyLostError ReplyTimeoutError ToolCall FunctionCall tool MessageObject FinishReason ChatOptions ChatParameters
    ContentPartDict FunctionCallDict FunctionDict JSONSchemaDict MessageDict ResponseFormatDict StreamOptionsDict
    ThinkingDict ToolCallDict ToolChoiceDict ToolDict TruncationStrategyDict
""".split()


def test_the_list_of_names_is_this_one() -> None:
    """A name is added or removed on purpose only."""
    assert sorted(ctxcache.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(ctxcache, name) is not None


def test_the_three_lists_of_names_agree() -> None:
    """The table of places, `__all__` and the imports for type checkers name the same things at the same places."""
    module = ast.parse(Path(ctxcache.__file__).read_text("utf-8"))
    (for_checkers,) = (node for node in module.body if isinstance(node, ast.If))
    imported = {
        name.name: "." * node.level + (node.module or "")
        for node in for_checkers.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    (table,) = (
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "_PLACES"
    )
    assert ast.literal_eval(table) == imported
    assert ctxcache.__all__ == list(dict.fromkeys(ctxcache.__all__))
    assert set(ctxcache.__all__) == set(imported)


def test_names_are_loaded_when_they_are_asked_for() -> None:
    """`import ctxcache` loads nothing; `dir()` shows all the same, a wrong name is said."""
    code = (
        "import sys, ctxcache; print([name for name in sys.modules if name.startswith(('ctxcache.', 'asyncio'))]);"
        "assert set(ctxcache.__all__) <= set(dir(ctxcache)); ctxcache.CtxCacheError; ctxcache.Prefix"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="'ctxcache' has no attribute 'Nothing'"):
        ctxcache.Nothing  # noqa: B018


def completions(source: str) -> set[str]:
    """What static completion offers at the end of a program."""
    jedi = pytest.importorskip("jedi")
    return {found.name for found in jedi.Script(source).complete()}


def test_static_completion_lists_the_public_names() -> None:
    """Jedi, as editors and notebooks use it, offers every public name, though the names are loaded lazily."""
    assert set(NAMES) <= completions("import ctxcache; ctxcache.")
    assert {"AsyncSession"} == completions("from ctxcache import AsyncS")


def test_static_completion_knows_arguments_and_answers() -> None:
    """Jedi offers the arguments of a call, and the attributes of an answer."""
    program = (
        "from ctxcache import AsyncSession, Prefix\nasync def main():\n    async with AsyncSession() as session:\n"
    )
    assert "temperature=" in completions(f"{program}        session.chat.stream(temp")
    assert "tool_choice=" in completions(f"{program}        await Prefix(session).ask('?', tool")
    assert {"text", "usage"} <= completions(f"{program}        reply = await session.chat.create()\n        reply.")


def test_every_error_is_public() -> None:
    """Whatever can be raised can be caught by name."""
    assert set(errors.__all__) <= set(ctxcache.__all__)


def test_version_is_the_distribution_s() -> None:
    """The version is written down once."""
    assert ctxcache.__version__ == version("ctxcache")


def test_the_tests_run_on_the_installed_package() -> None:
    """What is tested is what was installed, not the folder."""
    repository = Path(__file__).parents[1]
    if (repository / "ctxcache" / "__init__.py").samefile(ctxcache.__file__):
        pytest.skip("an editable install, or the folder on PYTHONPATH")
    assert "site-packages" in ctxcache.__file__


def parameters(function: object) -> list[str]:
    """The names of a function's parameters."""
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


REQUIRED = "context_id model messages".split()
CHAT = """
    temperature top_p n stop max_tokens presence_penalty frequency_penalty repetition_penalty
    tools tool_choice parallel_tool_calls response_format thinking stream_options user logprobs top_logprobs logit_bias
    service_tier repeatable serialize extra_headers extra_body timeouts retry
""".split()


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (
            AsyncSession.__init__,
            "api_key base_url timeouts limits retry headers http hooks chat_defaults allow_insecure".split(),
        ),
        (
            ContextEndpoint.create,
            "model messages mode ttl truncation_strategy extra_headers extra_body timeouts retry".split(),
        ),
        (ChatEndpoint.create, [*REQUIRED, "stream", *CHAT]),
        (ChatEndpoint.stream, [*REQUIRED, *CHAT]),
        (Timeouts, "connect pool head idle total".split()),
        (Limits, "connections keepalive event_bytes body_bytes answer_bytes".split()),
        (Retry, "attempts first_delay max_delay max_elapsed max_retry_after".split()),
    ],
)
def test_parameters(function: object, names: list[str]) -> None:
    """Parameters have the names users type."""
    assert parameters(function) == names


def test_defaults_of_the_settings() -> None:
    """The defaults are the documented ones."""
    assert Timeouts() == Timeouts(connect=10.0, pool=None, head=600.0, idle=120.0, total=None)
    assert Limits() == Limits(
        connections=1000, keepalive=30.0, event_bytes=16 * 2**20, body_bytes=64 * 2**20, answer_bytes=64 * 2**20
    )
    assert Retry() == Retry(attempts=3, first_delay=0.5, max_delay=8.0, max_elapsed=120.0, max_retry_after=60.0)


def test_importing_does_not_import_aiohttp() -> None:
    """`import ctxcache` costs neither aiohttp nor cattrs, nor does making a session."""
    code = (
        "import sys; before = set(sys.modules); import ctxcache; ctxcache.AsyncSession('sk-test');"
        "ctxcache.SQLiteStore('unused.db'); ctxcache.RedisStore;"
        "print({'aiohttp', 'cattrs', 'rich', 'redis', 'sqlite3'} & (sys.modules.keys() - before))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def public_definitions() -> list[tuple[str, ast.AST]]:
    """Every public module, class and function of the package, by place."""
    found: list[tuple[str, ast.AST]] = []
    folder = Path(ctxcache.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        module = ast.parse(path.read_text("utf-8"))
        place = str(path.relative_to(folder))
        found.append((place, module))
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                found.append((f"{place}:{node.lineno} {node.name}", node))
    return found


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function, from its `def` to its end, without those of its docstring."""
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def test_files_and_functions_are_taken_in_at_one_sitting() -> None:
    """No file of the package beyond 400 lines, where 300 is the aim, and no function beyond 40."""
    long_files, long_functions = [], []
    for path in Path(ctxcache.__file__).parent.rglob("*.py"):
        text = path.read_text("utf-8")
        if len(text.splitlines()) > 400:
            long_files.append(str(path))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and length(node) > 40:
                long_functions.append(f"{path}:{node.lineno} {node.name}")
    assert (long_files, long_functions) == ([], [])
