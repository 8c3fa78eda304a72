"""The program of the child process: llama.cpp's HTTP server on a loopback port, until the parent ends.

Run by path and free of imports from this package: the child needs neither aiohttp nor the time to import it.

::

    stdin   one line of JSON, the settings; then silence. The end of stdin ends the child.
    stdout  one line of JSON: `{"url": …}`, or `{"missing": true}` where xllamacpp is not installed, or `{"error": …}`.
    stderr  the log of llama.cpp

The key of the server arrives through stdin, since every user of a machine can read command lines.
"""

import ctypes
import importlib
import json
import os
import shutil
import signal
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve until the parent ends; return 1 if that is impossible."""
    settings = json.loads(sys.stdin.buffer.readline())
    report = _take_stdout()
    # Native code holds the interpreter while the model is loaded, so that nobody can read stdin.
    _end_with(settings["parent"])
    try:
        xllamacpp: Any = importlib.import_module("xllamacpp")
    except ModuleNotFoundError:
        return _fail(report, missing=True)
    except ImportError as error:
        return _fail(report, error=str(error))
    try:
        server = xllamacpp.Server(_parameters(xllamacpp, settings))
    except Exception as error:
        return _fail(report, error=str(error))
    os.write(report, json.dumps({"url": server.listening_address}).encode() + b"\n")
    _end_with(None)
    sys.stdin.buffer.read()
    shutil.rmtree(settings["folder"], ignore_errors=True)  # as the parent would have done, had it not been killed
    return 0


def _take_stdout() -> int:
    """Keep stdout for the report: whatever native code prints goes to the log."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _end_with(parent: int | None) -> None:
    """Let Linux kill this process when the parent ends, or no longer."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0 if parent is None else signal.SIGKILL)
        if parent is not None and os.getppid() != parent:
            sys.exit(1)  # the parent ended before


def _fail(report: int, **reason: object) -> int:
    os.write(report, json.dumps(reason).encode() + b"\n")
    return 1


def _parameters(xllamacpp: Any, settings: dict[str, Any]) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["model"]
    parameters.model_alias = {settings["name"]}
    parameters.port = 0
    parameters.api_keys = [settings["key"]]
    parameters.n_parallel = settings["slots"]
    parameters.n_ctx = settings["window"] * settings["slots"]  # divided among the slots
    parameters.n_batch = parameters.n_ubatch  # a shorter step of a long prompt: cancelled sooner, fairer to others
    parameters.slot_save_path = settings["folder"] + os.sep
    # The engine saves and restores slots by itself.
    parameters.cache_ram_mib = 0
    parameters.cache_idle_slots = False
    if settings["threads"]:
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = settings["threads"]
    parameters.fit_params = _has_gpu(xllamacpp)  # measures the memory of GPUs, which takes a second
    parameters.ui = False
    parameters.verbosity = 2  # warnings and errors
    return parameters


def _has_gpu(xllamacpp: Any) -> bool:
    return any(device["name"] != "CPU" for device in xllamacpp.get_device_info())


if __name__ == "__main__":
    sys.exit(main())
