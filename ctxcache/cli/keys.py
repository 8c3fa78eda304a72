"""`ctxcache keys`: the file of keys of a gateway."""

import argparse
from typing import Final

from ..errors import InvalidInputError
from .serving import limit
from .terminal import Terminal

__all__ = ["add_options", "run"]

SUMMARY: Final = "add, list and remove the keys of a gateway"
DESCRIPTION: Final = """\
Keep the keys of a gateway in a file, for `ctxcache serve --keys FILE`. Each
key has a name, and sees only the contexts that were created with it.

add prints a new key to stdout, this once: the file, which only its owner can
read, has no keys but hashes. A gateway takes a changed file after SIGHUP.
Calls under way with a key that was removed end as usual."""
EXAMPLES: Final = """\
examples:
  ctxcache keys add keys.json search-service
  ctxcache keys add keys.json trial --limit calls=4 --limit tokens_per_minute=20000
  ctxcache keys list keys.json
  ctxcache keys remove keys.json search-service && kill -HUP GATEWAY"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's options."""
    parser.add_argument("action", choices=("add", "list", "remove"), help="what to do")
    parser.add_argument("file", metavar="FILE", help="file of keys; add makes one")
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the key, for add and remove")
    parser.add_argument(
        "--limit",
        action="append",
        type=limit,
        metavar="NAME=N",
        help="limit of the key that add makes: contexts, memory_bytes, calls (at once), requests_per_minute or "
        "tokens_per_minute; bytes also as KiB, MiB, GiB; repeatable (default: none but those of the gateway)",
    )


def run(args: argparse.Namespace, terminal: Terminal) -> int:
    """Change or show the file."""
    from ..gateway.key_file import add_key, read_keys, remove_key  # imports aiohttp, which would slow --help
    from ..gateway.rules.key_list import read_limits

    if (args.name is None) != (args.action == "list"):
        needed = "takes no NAME" if args.action == "list" else "needs a NAME"
        raise InvalidInputError(f"ctxcache keys {args.action} {needed}", field="name")
    if args.limit and args.action != "add":
        raise InvalidInputError(f"ctxcache keys {args.action} takes no --limit", field="limit")
    if args.action == "add":
        terminal.out.write(f"{add_key(args.file, args.name, read_limits(dict(args.limit or ())))}\n")
        terminal.note(f"this is the only time that the key of {args.name} is shown")
    elif args.action == "remove":
        remove_key(args.file, args.name)
        terminal.note(f"removed the key of {args.name}")
    else:
        for key in read_keys(args.file):
            limits = [f"{name}={value}" for name, value in key.limits_given.items()]
            terminal.out.write(f"{' '.join([key.name, *limits])}\n")
    return 0
