"""`ctxcache proxy`: OpenAI's chat endpoint in front of a service with context caching, until a signal stops it."""

import argparse
import asyncio
import json
import os
from contextlib import AsyncExitStack
from typing import Any, Final

from ..config import DEFAULT_BASE_URL, UNSET
from ..errors import InvalidInputError
from .inputs import port, read_text, seconds, whole_number
from .service import read_key
from .serving import (
    add_allow_host,
    add_limit_options,
    close_after,
    fast_loop,
    print_exports,
    read_limits,
    stop_signals,
)
from .terminal import Terminal

__all__ = ["add_options", "run"]

SUMMARY: Final = "serve clients of OpenAI's API over cached contexts"
DESCRIPTION: Final = """\
Run a proxy: programs that know OpenAI's API and a base URL send their chats
here. A chat whose first messages are registered, or marked with
"cache_control", goes over a context, which is created once and used again.
Every other chat is passed on as sent. The response header X-Ctxcache says
which way a chat went: "created; ID", "hit; ID" or "plain".

Two lines for the client's shell go to stdout; paste them there. Ctrl-C or
SIGTERM stops the proxy with exit code 0: no new requests, and answers under
way have --grace seconds to end. A second Ctrl-C or SIGTERM ends it at once."""
EXAMPLES: Final = """\
examples:
  ctxcache proxy
  ctxcache proxy --port 0 --prefixes prefixes.json --store contexts.db
  ctxcache proxy --upstream http://127.0.0.1:8000/v1 --max-contexts 20 --ttl 1h"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    group = parser.add_argument_group("address and key")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=port, default=8100, metavar="N", help="port; 0: any free one (default: 8100)")
    keys = group.add_mutually_exclusive_group()
    keys.add_argument(
        "--key",
        metavar="KEY",
        help="API key for clients; every user of a machine can read command lines (default: a random key)",
    )
    keys.add_argument("--key-file", metavar="FILE", help="file with the key, which is then not printed")
    add_allow_host(group)
    group = parser.add_argument_group("service behind")
    group.add_argument(
        "--upstream",
        metavar="URL",
        help=f"base URL, version included (default: CTXCACHE_BASE_URL, else {DEFAULT_BASE_URL})",
    )
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with the service's API key (default: the key in CTXCACHE_API_KEY); clients never see this key",
    )
    _add_context_options(parser)
    add_limit_options(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="log each request to stderr; no content, no key")


def _add_context_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("contexts")
    group.add_argument(
        "--prefixes",
        metavar="FILE",
        help='JSON list of {"model": …, "messages": […]}: a chat of that model that begins so goes over a context',
    )
    group.add_argument(
        "--store",
        metavar="FILE|URL",
        help="SQLite file, or redis://… URL, that remembers the contexts for the next start and other proxies "
        "(default: CTXCACHE_STORE, else none)",
        default=os.environ.get("CTXCACHE_STORE") or None,
    )
    group.add_argument(
        "--ttl",
        type=seconds,
        default=UNSET,
        metavar="TIME",
        help="idle time after which a context ends, from 1h to 7d: 3600, 1h, 1h30m (default: the service's, 1d)",
    )
    _add_budget_options(group)


def _add_budget_options(group: Any) -> None:
    group.add_argument(
        "--max-contexts",
        type=whole_number(0),
        default=256,
        metavar="N",
        help="the most live contexts for marked and learned beginnings, which are billed storage; further ones go "
        "without (default: 256; 0: none). Registered prefixes do not count",
    )
    group.add_argument(
        "--learn",
        type=whole_number(2),
        metavar="M",
        help="give a beginning a context when M chats have begun so, without a mark (default: never)",
    )
    group.add_argument(
        "--learn-tokens",
        type=whole_number(1),
        default=1024,
        metavar="N",
        help="the least tokens of a learned beginning, roughly (default: 1024)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Serve until a signal arrives."""
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(_serve(args, terminal))
    return 0


async def _serve(args: argparse.Namespace, terminal: Terminal) -> None:
    from ..managed.stores import open_store  # would slow --help
    from ..proxy import Proxy

    prefixes = [] if args.prefixes is None else _read_prefixes(args.prefixes)
    with stop_signals() as stop:
        async with AsyncExitStack() as stack:
            store = None if args.store is None else open_store(args.store)
            if store is not None:
                await stack.enter_async_context(store)
            proxy = Proxy(
                _upstream_key(args),
                args.upstream,
                host=args.host,
                port=args.port,
                api_key=args.key if args.key_file is None else read_key(args.key_file),
                prefixes=prefixes,
                store=store,
                ttl=args.ttl,
                max_contexts=args.max_contexts,
                learn=args.learn,
                learn_tokens=args.learn_tokens,
                limits=read_limits(args.limit or ()),
                allowed_hosts=args.allow_host,
            )
            await stack.enter_async_context(proxy)
            print_exports("OPENAI", proxy, args, terminal, f"in front of {proxy.upstream}")
            await close_after(stop, proxy, args, terminal)
    terminal.note("stopped")


def _upstream_key(args: argparse.Namespace) -> str:
    if args.api_key_file is not None:
        return read_key(args.api_key_file)
    key = os.environ.get("CTXCACHE_API_KEY", "")
    if not key.strip():
        raise InvalidInputError("no API key: set CTXCACHE_API_KEY, or give --api-key-file FILE", field="api_key")
    return key


def _read_prefixes(name: str) -> list[Any]:
    allowed = "a JSON list of objects with model and messages"
    text = read_text(name)
    try:
        prefixes = json.loads(text)
    except (ValueError, RecursionError):
        prefixes = None
    if not isinstance(prefixes, list):
        raise InvalidInputError(f"{name}: must be {allowed}", field="prefixes", allowed=allowed)
    return prefixes
