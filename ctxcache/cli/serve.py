"""`ctxcache serve`: the gateway on this machine, until a signal stops it."""

import argparse
import asyncio
import os
from typing import TYPE_CHECKING, Final

from ..errors import InvalidInputError
from .inputs import non_negative, port, whole_number
from .service import read_key
from .serving import (
    add_allow_host,
    add_limit_options,
    close_after,
    fast_loop,
    hangups,
    print_exports,
    read_limits,
    size,
    stop_signals,
)
from .terminal import Terminal

if TYPE_CHECKING:
    from ..gateway import Engine

__all__ = ["add_options", "run"]

SUMMARY: Final = "run a local gateway with both endpoints"
DESCRIPTION: Final = """\
Run a gateway on this machine: both endpoints of the Context API over real
HTTP, with contexts in memory or, with --state, in a file or Redis. By default
the answers are scripted; no language model writes them. With --engine openai
they come from servers of OpenAI's API (vLLM, SGLang, llama.cpp, Ollama, …),
whose prompt caches then serve contexts; with --engine llama from a model on
this machine, run by llama.cpp.

Two lines for the client's shell go to stdout; paste them there. With --keys
the second is left out. Ctrl-C or SIGTERM stops the gateway with exit code 0:
no new requests, and answers under way have --grace seconds to end. A second
Ctrl-C or SIGTERM ends it at once."""
EXAMPLES: Final = """\
examples:
  ctxcache serve
  ctxcache serve --port 0 --key local-test --pieces-per-second 0
  ctxcache serve --engine openai --upstream http://127.0.0.1:8001/v1
  ctxcache serve --engine openai --upstream http://gpu-1:8000/v1 \\
    --upstream http://gpu-2:8000/v1 --model chat=Qwen/Qwen3-8B --window 32768
  ctxcache serve --engine llama --model Qwen3-8B-Q4_K_M.gguf --state c.db
  ctxcache serve --fault chat:rate_limit=7,nth=3 --fault delay=0.5"""

UPSTREAM_KEY: Final = "CTXCACHE_UPSTREAM_KEY"
UPSTREAM_KINDS: Final = ("auto", "vllm", "sglang", "llama.cpp", "ollama", "openai")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    group = parser.add_argument_group("address and key")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=port, default=8000, metavar="N", help="port; 0: any free one (default: 8000)")
    keys = group.add_mutually_exclusive_group()
    keys.add_argument(
        "--key",
        metavar="KEY",
        help="API key for clients; every user of a machine can read command lines (default: a random key; "
        "CTXCACHE_API_KEY is ignored, since it is likely your key for a real service)",
    )
    keys.add_argument("--key-file", metavar="FILE", help="file with the key, which is then not printed")
    keys.add_argument(
        "--keys",
        metavar="FILE",
        help="file of keys made by `ctxcache keys`; each key sees only its own contexts. SIGHUP reads the file again",
    )
    add_allow_host(group)
    _add_answer_options(parser)
    _add_state_option(parser)
    add_limit_options(parser)
    group = parser.add_argument_group("faults, for tests of clients")
    group.add_argument(
        "--fault",
        action="append",
        metavar="[create:|chat:]KIND[=VALUE][,OPTION=VALUE…]",
        help="let calls fail: chat:fail=503,times=2 (kinds and options: `ctxcache docs testing`); repeatable",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log each request to stderr; no content, no key")


def _add_answer_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("answers")
    group.add_argument(
        "--engine",
        choices=("scripted", "openai", "llama"),
        default="scripted",
        help="who writes the answers (default: scripted)",
    )
    group.add_argument(
        "--model",
        action="append",
        type=_model,
        metavar="ID[=NAME]",
        help="model to serve, and the upstream's name of that model; repeatable (default: the three documented ones; "
        "with an upstream, the upstream's). With --engine llama: FILE.gguf or ID=FILE.gguf, once",
    )
    group.add_argument(
        "--window",
        type=whole_number(2),
        metavar="TOKENS",
        help="context window of each model (default: as the upstream tells, else 32768; with --engine llama the "
        "model's own, at most 8192)",
    )
    group.add_argument(
        "--no-warm",
        action="store_true",
        default=None,
        help="do not compute a context when the context is created; with --engine openai or llama",
    )
    _add_upstream_options(parser)
    _add_llama_options(parser)
    _add_script_options(parser)


def _add_upstream_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --engine openai")
    group.add_argument(
        "--upstream",
        action="append",
        metavar="URL",
        help="base URL of a server, version included; repeatable: each context stays with one of the servers",
    )
    group.add_argument(
        "--upstream-kind",
        choices=UPSTREAM_KINDS,
        metavar="KIND",
        help=f"what the servers are: {', '.join(UPSTREAM_KINDS[1:])} (default: auto, which asks each server once; "
        "before a router, name the kind of the servers behind)",
    )
    group.add_argument(
        "--upstream-key-file",
        metavar="FILE",
        help=f"file with the key for the servers, which no client sees (default: the key in {UPSTREAM_KEY}, else none)",
    )


def _add_llama_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --engine llama")
    group.add_argument(
        "--slots",
        type=whole_number(1),
        metavar="N",
        help="calls answered at once; each slot takes memory for a whole window (default: 4)",
    )
    group.add_argument(
        "--threads", type=whole_number(1), metavar="N", help="threads for the computation (default: as llama.cpp finds)"
    )
    group.add_argument(
        "--cache-bytes",
        type=size,
        metavar="N",
        help="most bytes of computed contexts on the disk, also as KiB, MiB, GiB; beyond, those used longest ago are "
        "computed again (default: 4GiB)",
    )
    group.add_argument(
        "--cache-dir",
        metavar="DIR",
        help="folder for the private folder of computed contexts (default: the system's; with --state FILE, "
        "FILE.cache, which stays)",
    )


def _add_script_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with --engine scripted")
    group.add_argument(
        "--pieces-per-second",
        type=non_negative,
        metavar="X",
        help="speed of each reply in words of up to 8 characters; 0: as fast as possible (default: 40)",
    )
    group.add_argument(
        "--first-token-delay",
        type=non_negative,
        metavar="SECONDS",
        help="wait before each reply (default: 0.2)",
    )
    group.add_argument(
        "--length", type=whole_number(0), metavar="N", help="pieces of each reply (default: the whole script)"
    )


def _model(text: str) -> tuple[str, str]:
    """Read `ID` or `ID=NAME`: the gateway's id of a model, and the upstream's name."""
    name, given, theirs = text.partition("=")
    if given and not (name and theirs):
        raise argparse.ArgumentTypeError(f"{text!r} is not an id, or an id and a name: ID=NAME")
    return name, theirs or name


def _add_state_option(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contexts")
    group.add_argument(
        "--state",
        default=os.environ.get("CTXCACHE_STATE") or "memory",
        metavar="FILE|URL",
        help="file that keeps contexts and turns, made on first use, or redis://… for several gateways; after a "
        "restart, even a crash, they are there again (default: CTXCACHE_STATE, else memory, where they end with "
        "the gateway)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until a signal arrives."""
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(_serve(args, terminal))
    return 0


async def _serve(args: argparse.Namespace, terminal: Terminal) -> None:
    from ..gateway import Gateway  # imports aiohttp, which would slow --help

    key = args.key if args.key_file is None else read_key(args.key_file)
    engine, models, told = await _ENGINES[args.engine](args)
    gateway = Gateway(
        host=args.host,
        port=args.port,
        api_key=key,
        engine=engine,
        models=models,
        limits=read_limits(args.limit or ()),
        allowed_hosts=args.allow_host,
        state=None if args.state == "memory" else args.state,
        faults=args.fault or (),
        keys=args.keys,
    )
    with stop_signals() as stop, hangups(gateway.reload_keys if args.keys else None):
        async with gateway:
            print_exports("CTXCACHE", gateway, args, terminal, told)
            await close_after(stop, gateway, args, terminal)
    terminal.note("stopped")


async def _script(args: argparse.Namespace) -> "tuple[Engine, dict[str, int], str]":
    """Return the scripted engine, the models, and a phrase for the terminal."""
    from ..gateway import MODELS, WINDOW, ScriptedEngine

    _refuse_options_of_others(args)
    pace = 40.0 if args.pieces_per_second is None else args.pieces_per_second
    delay = 0.2 if args.first_token_delay is None else args.first_token_delay
    engine = ScriptedEngine(pieces_per_second=pace, first_token_delay=delay, length=args.length)
    names = [name for name, _ in args.model] if args.model else MODELS
    return engine, dict.fromkeys(names, args.window or WINDOW), "scripted answers, no language model"


async def _upstream(args: argparse.Namespace) -> "tuple[Engine, dict[str, int], str]":
    """Return the engine for the upstreams, the models, and a phrase for the terminal."""
    from ..gateway import WINDOW, UpstreamEngine

    _refuse_options_of_others(args)
    if not args.upstream:
        raise InvalidInputError("--engine openai needs --upstream URL", field="upstream")
    key = os.environ.get(UPSTREAM_KEY) or None if args.upstream_key_file is None else read_key(args.upstream_key_file)
    engine = UpstreamEngine(
        args.upstream,
        api_key=key,
        model_names=dict(args.model or ()),
        kind=args.upstream_kind or "auto",
        warm=not args.no_warm,
    )
    windows: dict[str, int | None] = {name: None for name, _ in args.model or ()}
    try:
        if not windows:
            windows = await engine.models()
    finally:
        await engine.aclose()
    if not windows:
        raise InvalidInputError("the upstream lists no models: name them with --model", field="model")
    models = {name: args.window or window or WINDOW for name, window in windows.items()}
    return engine, models, f"answers from {', '.join(args.upstream)}; models: {', '.join(models)}"


async def _llama(args: argparse.Namespace) -> "tuple[Engine, dict[str, int], str]":
    """Return the engine for a model on this machine, the model, and a phrase for the terminal."""
    from ..gateway.engines.llama import SMALL_MODEL_HINT, LlamaEngine

    _refuse_options_of_others(args)
    if len(args.model or ()) != 1:
        raise InvalidInputError(f"--engine llama needs --model FILE.gguf, once; {SMALL_MODEL_HINT}", field="model")
    name, file = args.model[0]
    given = {option: value for option in _OPTIONS["llama"] if (value := getattr(args, option)) is not None}
    if args.state != "memory" and "://" not in args.state:
        given = {"cache_dir": f"{args.state}.cache", **given, "keep_cache": True}
    engine = LlamaEngine(file, name=None if name == file else name, window=args.window, warm=not args.no_warm, **given)
    return engine, engine.models, f"answers from {engine.path.name}, by llama.cpp; model: {', '.join(engine.models)}"


_ENGINES: Final = {"scripted": _script, "openai": _upstream, "llama": _llama}
_OPTIONS: Final = {
    "scripted": ("pieces_per_second", "first_token_delay", "length"),
    "openai": ("upstream", "upstream_kind", "upstream_key_file"),
    "openai or llama": ("no_warm",),
    "llama": ("slots", "threads", "cache_bytes", "cache_dir"),
}


def _refuse_options_of_others(args: argparse.Namespace) -> None:
    for engines, options in _OPTIONS.items():
        for option in options:
            if args.engine not in engines.split() and getattr(args, option) is not None:
                name = option.replace("_", "-")
                raise InvalidInputError(f"--{name} needs --engine {engines}", field=option)
    if args.engine == "scripted" and any(name != theirs for name, theirs in args.model or ()):
        raise InvalidInputError("--model ID=NAME needs --engine openai or llama", field="model")
