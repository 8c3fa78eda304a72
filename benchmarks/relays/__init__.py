"""The relays, each described once: the command that starts one between the clients and the load server."""

import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from ..clients import FLOOR, KEY, OURS, UVLOOP
from ..processes import ROOT

__all__ = ["FLOOR_UVLOOP", "LITELLM", "NAMES", "Place", "Relay", "find", "free_port", "installed", "nginx_program"]

FLOOR_UVLOOP: Final = f"{FLOOR}+uvloop"
LITELLM: Final = "litellm"


@dataclass(frozen=True)
class Place:
    """Where a relay is to stand.

    Attributes:
        upstream: the load server's URL, without a path.
        port: the port to listen on.
        models: the loads that will be asked for.
        folder: for configuration and scratch files.
    """

    upstream: str
    port: int
    models: Sequence[str]
    folder: Path


@dataclass(frozen=True)
class Relay:
    """One relay.

    Attributes:
        command: makes the command line for a place.
        needs: the module the relay needs.
        environment: variables the relay is started with, beside this process's.
        context: whether the relay serves the Context API: a question then goes to a context, which is created first.
    """

    command: Callable[[Place], list[str]]
    needs: str
    environment: dict[str, str] = field(default_factory=dict)
    context: bool = False


def _ctxcache(place: Place, *, without: str = "") -> list[str]:
    # A module that is None in sys.modules cannot be imported.
    hide = f"import sys; sys.modules[{without!r}] = None; " if without else ""
    program = f"{hide}from ctxcache.cli import main; raise SystemExit(main())"
    served = [option for model in place.models for option in ("--model", model)]
    options = ["--port", str(place.port), "--key", KEY, "--upstream", f"{place.upstream}/v1", "--no-warm", *served]
    return [sys.executable, "-c", program, "serve", "--engine", "openai", *options]


def _bare(place: Place, *options: str) -> list[str]:
    program = f"import sys; sys.path.append({str(ROOT)!r}); from benchmarks.relays.bare import main; main()"
    return [sys.executable, "-c", program, place.upstream, str(place.port), *options]


def _litellm(place: Place) -> list[str]:
    config = place.folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: '*'\n"
        f"    litellm_params: {{model: 'openai/*', api_base: '{place.upstream}/v1', api_key: '{KEY}'}}\n"
        f"general_settings: {{master_key: '{KEY}'}}\n"
    )
    program = "from litellm import run_server; run_server()"
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(place.port), "--telemetry", "False"]
    return [sys.executable, "-c", program, *options]


def _vllm_router(place: Place) -> list[str]:
    options = ["--host", "127.0.0.1", "--port", str(place.port), "--worker-urls", place.upstream]
    quiet = ["--log-level", "error", "--prometheus-port", str(free_port())]
    return [sys.executable, "-m", "vllm_router.launch_router", *options, "--policy", "round_robin", *quiet]


_NGINX: Final = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream upstream {{ server {upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://upstream;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def nginx_program() -> str | None:
    """Where nginx is installed; many systems do so beside an ordinary user's path."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _nginx(place: Place) -> list[str]:
    config = place.folder / "nginx.conf"
    config.write_text(_NGINX.format(upstream=place.upstream.removeprefix("http://"), port=place.port))
    return [nginx_program() or "nginx", "-p", str(place.folder), "-c", config.name]


# In the order they are measured: the floor right after ctxcache on the same event loop.
_KNOWN: Final = {
    OURS: Relay(lambda place: _ctxcache(place, without="uvloop"), "ctxcache", context=True),
    FLOOR: Relay(_bare, "aiohttp"),
    UVLOOP: Relay(_ctxcache, "uvloop", context=True),
    FLOOR_UVLOOP: Relay(lambda place: _bare(place, "uvloop"), "uvloop"),
    "vllm-router": Relay(_vllm_router, "vllm_router"),
    "nginx": Relay(_nginx, "nginx"),
    LITELLM: Relay(_litellm, "litellm_proxy_extras", {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}),
}
NAMES: Final = tuple(_KNOWN)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def find(name: str) -> Relay:
    """The relay of that name."""
    return _KNOWN[name]


def installed(name: str) -> bool:
    """Whether the relay can be started here."""
    return nginx_program() is not None if name == "nginx" else find_spec(_KNOWN[name].needs) is not None
