"""What the commands that call a service share: where it is, with which key, for which model."""

import argparse
import os
from typing import Final

from ..client.session import AsyncSession
from ..config import DEFAULT_BASE_URL, Retry
from ..errors import InvalidInputError
from .inputs import read_text

__all__ = ["add_service_options", "model_of", "open_session", "read_key"]

_RETRY: Final = Retry()


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_session` and `model_of` read."""
    group = parser.add_argument_group("service")
    group.add_argument(
        "--model",
        metavar="ID",
        default=os.environ.get("CTXCACHE_MODEL"),
        help="the model, such as Doubao-1.5-pro-32k (default: CTXCACHE_MODEL; required)",
    )
    group.add_argument(
        "--base-url",
        metavar="URL",
        help=f"the gateway, up to and with its version (default: CTXCACHE_BASE_URL, else {DEFAULT_BASE_URL})",
    )
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="a file that holds the API key (default: the key in CTXCACHE_API_KEY). There is no option for the key "
        "itself, since every user of a machine can read command lines",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="log each call on stderr: ids, times, tokens; no content, no key"
    )


def open_session(args: argparse.Namespace, retry: Retry = _RETRY) -> AsyncSession:
    """Make the session; nothing is sent yet."""
    if args.api_key_file is not None:
        key = read_key(args.api_key_file)
    else:
        key = os.environ.get("CTXCACHE_API_KEY", "")
        if not key.strip():
            raise InvalidInputError("no API key: set CTXCACHE_API_KEY, or give --api-key-file FILE", field="api_key")
    return AsyncSession(key, args.base_url, retry=retry)


def read_key(name: str) -> str:
    """Return the key a file holds, without the white space around it."""
    key = read_text(name).strip()
    if not key or not key.isprintable():
        raise InvalidInputError(f"{name}: it is to hold an API key and nothing else", field="api_key")
    return key


def model_of(args: argparse.Namespace) -> str:
    """Return the model that was asked for."""
    if not args.model:
        raise InvalidInputError("no model: give --model ID, or set CTXCACHE_MODEL", field="model")
    return str(args.model)
