"""What a run was made on and with: no host names, no paths, no user names."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from .relays import nginx_program

_PACKAGES: Final = (
    "ctxcache aiohttp attrs msgspec cattrs openai httpx2 volcengine-ark-runtime httpx httpx-sse pydantic uvloop "
    "litellm vllm-router"
).split()
_ROOT: Final = Path(__file__).parent.parent


def machine() -> dict[str, Any]:
    """The machine: processor, cores this process may use, memory, operating system."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": processor(),
        "cores": cores,
        "memory_gib": round(memory, 1),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def processor() -> str:
    """The processor's model."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Python's, and those of the packages and programs that matter and are installed."""
    found = {"Python": f"{platform.python_implementation()} {platform.python_version()}"}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if program := nginx_program():
        told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr
        found["nginx"] = told.strip().rpartition("/")[2]
    return found


def commit() -> str:
    """The commit that is checked out, with `+ changes` where the tree differs from it; "" outside a repository."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD").strip()
        changes = _git(
            "status", "--porcelain", "--", "ctxcache", "benchmarks", ":!benchmarks/RESULTS.md", ":!benchmarks/pictures"
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head} + changes" if changes.strip() else head


def _git(*arguments: str) -> str:
    return subprocess.check_output(["git", *arguments], cwd=_ROOT, text=True, stderr=subprocess.DEVNULL)


def command(arguments: list[str]) -> str:
    """The command line, files by their names only."""
    shown = [Path(argument).name if os.sep in argument else argument for argument in arguments]
    return " ".join(["python -m benchmarks", *shown])
