"""Check that each module is covered by its own tests, not by chance from afar.

The tests of `ctxcache/a/b.py` are `tests/a/test_b.py` and `tests/a/test_b_*.py`. One run of the suite notes for each
line and branch which test ran it; this program then asks, for each module, what its own tests left out::

    pytest --cov --cov-context=test && python tests/own_coverage.py

Only the bodies of functions count: an import runs the rest. `ALLOWED` lists the modules that fall short, with the
lines and branches missing today and the reason. A number there may sink, never rise. With `--list` the program prints
that list as the last run has it.
"""

import ast
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import coverage

# The tests of modules that are not named after them; patterns.
TESTS = {
    "__init__.py": "test_public_api",
    "cli/__init__.py": "cli/test_main",
    "cli/serving.py": "cli/test_(serve|proxy)",
    "client/call.py": "client/test_calls",
    "client/resources/chat.py": "client/test_requests",
    "client/resources/context.py": "client/test_requests",
    "client/session.py": "client/test_(session|options)",
    "config.py": "(test_config|client/test_options)",
    "gateway/contexts.py": "gateway/state/test_(conformance|sqlite|redis)",
    "gateway/endpoints.py": "gateway/(test_endpoints|test_grace|engines/test_protocol)",
    "gateway/engines/upstream/asking.py": "gateway/engines/upstream/test_(asking|engine)",
    "gateway/engines/upstream/engine.py": "gateway/engines/upstream/test_(engine|trouble|server)",
    "gateway/engines/upstream/failures.py": "gateway/engines/upstream/test_(failures|trouble|engine)",
    "gateway/engines/upstream/server.py": "gateway/engines/upstream/test_(server|trouble|engine)",
    "gateway/generation.py": "gateway/(test_generation|engines/test_protocol)",
    "gateway/key_file.py": "gateway/test_(key_file|server_keys)",
    "gateway/calls.py": "gateway/(test_calls|state/test_redis_limits)",
    "gateway/rules/answers.py": "gateway/(rules/test_answers|engines/test_protocol)",
    "gateway/rules/records.py": "gateway/state/test_(conformance|sqlite|redis)",
    "gateway/rules/served.py": "gateway/(rules/test_(table|table_memory)|state/test_(conformance|sqlite|redis))",
    "gateway/rules/reply.py": "gateway/(rules/test_reply|engines/test_protocol)",
    "gateway/server.py": "gateway/(test_server|engines/test_protocol|state/test_(conformance|sqlite|redis))",
    "client/resources/parameters.py": "client/test_(requests|arguments|options)",
    "client/stream.py": "client/test_(stream|streamed_answer)",
    "client/streamed_answer.py": "client/test_(streamed_answer|stream)",
    "gateway/app.py": "gateway/test_(app|hostile_http|slow_clients)",
    "gateway/connection.py": "gateway/test_(connection|connections_bound|slow_clients|hostile_http|leaving)",
    "gateway/limits.py": "gateway/(test_limits|test_server)",
    "gateway/listener.py": "gateway/test_(listener|connections_bound)",
    "gateway/serving.py": "gateway/test_server",
    "gateway/state/sqlite.py": "gateway/state/test_(conformance|sqlite)",
    "gateway/state/redis.py": "gateway/state/test_(conformance|redis)",
    "redis_client.py": "(managed/stores|gateway/state)/test_redis",
    "integrations/langchain/chat.py": "integrations/langchain/test_(chat|standard)",
    "integrations/pydantic_ai_requests.py": "integrations/test_pydantic_ai",
    "gateway/rules/refusals.py": "gateway/(rules/test_(refusals|rates)|test_calls|state/test_(sqlite|redis))",
    "gateway/rules/table.py": "gateway/(rules/test_table|state/test_(conformance|sqlite|redis))",
    "gateway/rules/window.py": "gateway/(rules/test_window|state/test_(conformance|sqlite|redis))",
    "gateway/rules/clients.py": "gateway/(rules/test_(clients|key_list|rates)|test_calls)",
    "keywords.py": "(test_keywords|client/test_arguments)",
    "managed/conversation/dialogue.py": "managed/conversation/test_(dialogue|conversation)",
    "models/plain.py": "(models/test_plain|models/test_answers)",
    "managed/mapping/retries.py": "managed/mapping/test_(retries|outage)",
    "gateway/engines/llama/chat.py": "gateway/engines/llama/test_engine",
    "managed/mapping/scheduler.py": "managed/mapping/test_(scheduler|map|outage)",
}

# Module: (lines and branches that its own tests may miss, why).
ALLOWED: dict[str, tuple[int, str]] = {
    "__init__.py": (1, "runs in a process, in which no test is noted"),
    "checks.py": (2, "shapes that test_codec and test_requests send"),
    "cli/__init__.py": (3, "commands run as processes, in which no test is noted"),
    "cli/batch/progress.py": (24, "the bar needs a terminal, so the command runs as a process"),
    "cli/chat.py": (6, "commands run as processes, in which no test is noted"),
    "cli/conversation.py": (25, "run by the tests of the commands that use it"),
    "cli/demo.py": (10, "commands run as processes, in which no test is noted"),
    "cli/map.py": (2, "an option that test_outage of the command runs in a process"),
    "cli/proxy.py": (7, "commands run as processes, in which no test is noted"),
    "cli/serve.py": (6, "commands run as processes, in which no test is noted"),
    "cli/serving.py": (15, "commands run as processes, in which no test is noted"),
    "cli/terminal.py": (3, "run by the tests of the commands that use it"),
    "client/call.py": (4, "rare ends that test_stream reaches"),
    "client/calls.py": (30, "rare ends that test_session and test_stream reach"),
    "client/cancellation.py": (2, "rare ends that test_calls reaches"),
    "client/hooks.py": (2, "rare ends that test_calls reaches"),
    "client/resources/chat.py": (30, "prepared chats, which Prefix and Conversation send"),
    "client/resources/context.py": (5, "refusals that test_requests of the models reaches"),
    "client/resources/parameters.py": (24, "run at import and by the tests of every call"),
    "client/session.py": (6, "plain properties that tests of other rooms read"),
    "client/stream.py": (8, "a branch that types ask for"),
    "client/streamed_answer.py": (7, "relays that tests of Prefix and Conversation run"),
    "client/transport/body.py": (2, "ends that test_transport reaches"),
    "client/transport/exchange.py": (34, "ends that test_stream and test_session reach"),
    "client/transport/failures.py": (4, "reached by chance"),
    "client/transport/transport.py": (49, "ends that test_session and test_requests reach"),
    "cluster/columns.py": (17, "batches of numpy, pandas and pyarrow, where these are installed: .ci/ray"),
    "cluster/line.py": (2, "a batch that was cancelled as its last answer came"),
    "cluster/worker.py": (22, "begins and ends with a process, in which no test is noted"),
    "codec.py": (22, "encoding, which test_requests of the models drives"),
    "config.py": (8, "secrets and hidden headers, which test_secrets of the client reads"),
    "error_bodies.py": (4, "bodies that test_service_errors sends"),
    "errors.py": (3, "the JSON of errors, which test_answers of the maps reads"),
    "gateway/app.py": (11, "refusals that test_hostile_http reaches"),
    "gateway/bodies.py": (8, "interrupted threads, reached by chance"),
    "gateway/connection.py": (100, "ends that test_slow_clients and test_hostile_http reach"),
    "gateway/contexts.py": (14, "ends of calls that processes and cancellations reach"),
    "gateway/endpoints.py": (6, "ends that test_app reaches"),
    "gateway/engines/llama/chat.py": (4, "options that test_engine_model gives"),
    "gateway/engines/llama/child.py": (51, "runs in a process, in which no test is noted"),
    "gateway/engines/llama/engine.py": (16, "servers that end, by chance, and caches that test_engine_model keeps"),
    "gateway/engines/llama/files.py": (1, "a branch that types ask for"),
    "gateway/engines/llama/server.py": (11, "ends that test_engine and test_supervisor reach"),
    "gateway/engines/llama/supervisor.py": (6, "ends that test_engine reaches by chance"),
    "gateway/engines/upstream/reading.py": (4, "pieces that test_engine reads"),
    "gateway/generation.py": (4, "ends that test_streaming reaches"),
    "gateway/key_file.py": (2, "a branch that test_server_keys reaches in a process"),
    "gateway/limits.py": (5, "defaults that test_server takes"),
    "gateway/listener.py": (14, "ends that test_connections_bound reaches"),
    "gateway/rules/clients.py": (2, "converters that run at import, in which no test is noted"),
    "gateway/rules/table.py": (3, "tested through the endpoints"),
    "gateway/server.py": (10, "ends of a gateway that test_leaving reaches"),
    "gateway/serving.py": (17, "shared with the proxy, tested through test_server"),
    "gateway/state/redis.py": (9, "answers that are lost, reached by chance"),
    "gateway/state/sqlite.py": (8, "writes that come together, reached by chance"),
    "integrations/langchain/chat.py": (3, "runs in a forked process, in which no test is noted"),
    "integrations/sync.py": (13, "ends of the process, and waits of more than a second, in processes of their own"),
    "keywords.py": (27, "decorators run at import, in which no test is noted"),
    "managed/calls.py": (4, "options that the tests of Prefix and Conversation give"),
    "managed/conversation/autosave.py": (8, "failing disks, reached by chance"),
    "managed/conversation/conversation.py": (16, "options of a turn that test_deadline and test_secrets give"),
    "managed/conversation/dialogue.py": (11, "branches that types ask for"),
    "managed/conversation/session_context.py": (1, "branches that types ask for"),
    "managed/costs.py": (1, "tested through Prefix and Conversation"),
    "managed/keeper.py": (4, "ends that tests of Prefix reach"),
    "managed/mapping/map.py": (3, "ends that test_scheduler reaches"),
    "managed/mapping/scheduler.py": (6, "ends that tests of Prefix reach"),
    "managed/prefix/call.py": (13, "ends of streams that test_stream reaches"),
    "managed/prefix/prefix.py": (8, "options of a call that test_deadline and test_secrets give"),
    "managed/prefix/renewal.py": (16, "a shared context adopted while a fresh one was wanted, reached by chance"),
    "managed/prefix/shared_pause.py": (3, "a branch reached by chance"),
    "managed/prefix/store_access.py": (11, "the last resort of shared contexts, reached by chance"),
    "managed/stores/memory.py": (33, "tested by test_conformance, which every store passes"),
    "managed/stores/protocol.py": (4, "tested by test_conformance, which every store passes"),
    "managed/stores/redis.py": (2, "tested by test_conformance, which every store passes"),
    "managed/stores/sqlite.py": (4, "tested by test_conformance, which every store passes"),
    "managed/stream.py": (5, "relays that tests of Prefix and Conversation run"),
    "models/answers.py": (10, "shapes that test_codec reads"),
    "models/messages.py": (4, "forms that the requests of the client send"),
    "models/plain.py": (13, "shapes that test_answers reads"),
    "models/requests.py": (33, "refusals that test_requests of the client reaches"),
    "proxy/answers.py": (3, "a branch that types ask for"),
    "proxy/endpoints.py": (10, "ends that test_server reaches"),
    "proxy/plain.py": (10, "ends that test_endpoints reaches"),
    "proxy/server.py": (4, "ends that the command reaches"),
    "retry.py": (3, "a pause that the tests of stores tell"),
    "service_errors.py": (11, "bodies that test_wire sends"),
    "structs.py": (21, "tested with the rooms that use it"),
    "tolerant.py": (10, "shapes that test_codec reads"),
    "wire.py": (13, "options that test_requests of the client sends"),
}


def own_tests(module: str) -> str:
    """The pattern of the contexts in which a module's own tests run."""
    path = Path(module)
    name = TESTS.get(module) or (path.parent / f"test_{path.stem}").as_posix()
    return rf"(^|/)tests/{name}(_\w+)?\.py::"


def function_lines(source: str) -> set[int]:
    """The lines of all function bodies, those of the `def` and the decorators left out."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.update(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
    return found


def missing(data: coverage.Coverage, path: Path, module: str) -> list[str]:
    """The lines and branches of one module that its own tests do not run."""
    bodies = function_lines(path.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        try:
            data.json_report(include=[str(path)], contexts=[own_tests(module)], outfile=str(report))
        except coverage.exceptions.NoDataError:
            return [str(line) for line in sorted(bodies)]
        (found,) = json.loads(report.read_text("utf-8"))["files"].values()
    lines = [str(line) for line in found["missing_lines"] if line in bodies]
    branches = [f"{start}->{end}" for start, end in found["missing_branches"] if start in bodies]
    return lines + branches


def verdicts(package: Path, data: coverage.Coverage) -> Iterator[str]:
    """What is wrong: modules that miss more than they may.

    An allowance larger than needed is printed only, since some lines are reached by chance.
    """
    modules = {path.relative_to(package).as_posix(): path for path in sorted(package.rglob("*.py"))}
    yield from (
        f"{module}: there is no such module, take it off the list" for module in ALLOWED.keys() - modules.keys()
    )
    for module, path in modules.items():
        left = missing(data, path, module)
        allowed, _ = ALLOWED.get(module, (0, ""))
        if len(left) > allowed:
            yield f"{module}: {len(left)} lines and branches missing, {allowed} allowed: {', '.join(left)}"
        elif len(left) < allowed:
            print(f"{module}: {len(left)} lines and branches missing; lower its number from {allowed}")


def rows(package: Path, data: coverage.Coverage) -> Iterator[str]:
    """The list of exceptions as it should be now, a line a module."""
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).as_posix()
        if left := missing(data, path, module):
            _, reason = ALLOWED.get(module, (0, "no reason yet"))
            yield f'    "{module}": ({len(left)}, "{reason}"),'


def main() -> int:
    """Read the data of the last run, print what is wrong; the exit code says whether anything is."""
    data = coverage.Coverage(messages=False)
    data.load()
    measured = data.get_data().measured_files()
    (package,) = {Path(name).parent for name in measured if name.endswith("/ctxcache/__init__.py")}
    if "--list" in sys.argv[1:]:
        print(*rows(package, data), sep="\n")
        return 0
    found = list(verdicts(package, data))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
