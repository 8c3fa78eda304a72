"""Options of the commands that call a service: URL, key, model."""

import argparse
import os
from typing import Final

from ..client.hooks import Hooks
from ..client.session import AsyncSession
from ..config import DEFAULT_BASE_URL, Retry
from ..errors import InvalidInputError
from .inputs import read_text

__all__ = ["add_service_options", "model_of", "open_session", "read_key"]

_RETRY: Final = Retry()
_HOOKS: Final = Hooks()


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_session` and `model_of` read."""
    group = parser.add_argument_group("service")
    group.add_argument(
        "--model",
        metavar="ID",
        default=os.environ.get("CTXCACHE_MODEL"),
        help="model, such as Doubao-1.5-pro-32k (default: CTXCACHE_MODEL; required)",
    )
    group.add_argument(
        "--base-url",
        metavar="URL",
        help=f"base URL, version included (default: CTXCACHE_BASE_URL, else {DEFAULT_BASE_URL})",
    )
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="file with the API key (default: the key in CTXCACHE_API_KEY). The key itself is no option: every user of "
        "a machine can read command lines",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="log each call to stderr: ids, times, tokens; no content, no key"
    )


def open_session(args: argparse.Namespace, *, retry: Retry = _RETRY, hooks: Hooks = _HOOKS) -> AsyncSession:
    """Make the session; nothing is sent yet."""
    if args.api_key_file is not None:
        key = read_key(args.api_key_file)
    else:
        key = os.environ.get("CTXCACHE_API_KEY", "")
        if not key.strip():
            raise InvalidInputError("no API key: set CTXCACHE_API_KEY, or give --api-key-file FILE", field="api_key")
    return AsyncSession(key, args.base_url, retry=retry, hooks=hooks)


def read_key(name: str) -> str:
    """Return the key in a file, without surrounding white space."""
    key = read_text(name).strip()
    if not key or not key.isprintable():
        raise InvalidInputError(f"{name}: must contain only the API key", field="api_key")
    return key


def model_of(args: argparse.Namespace) -> str:
    """Return the model from the command line or the environment."""
    if not args.model:
        raise InvalidInputError("no model: give --model ID, or set CTXCACHE_MODEL", field="model")
    return str(args.model)
