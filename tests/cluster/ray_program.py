"""A driver with Ray on this machine: `python ray_program.py QUESTIONS FORMAT KILL BASE_URL STORE`.

FORMAT is that of the batches. Prints the answered rows as JSON.
"""

import json
import os
import signal
import sys
import threading

import ray

from ctxcache import system
from ctxcache.cluster import PrefixAsker


def kill_a_worker(base_url: str) -> None:
    """Kill the first process that has connections to the service."""
    import psutil

    port = int(base_url.rpartition(":")[2].partition("/")[0])
    while True:
        for process in psutil.process_iter():
            try:
                connections = process.net_connections() if process.name().startswith("ray::") else []
            except psutil.Error:
                continue
            if len([one for one in connections if one.raddr and one.raddr.port == port]) > 8:
                os.kill(process.pid, signal.SIGKILL)
                return


def main() -> None:
    """Ask; if told to, kill a worker when it has many connections."""
    count, batch_format, kill, base_url, store = sys.argv[1:]
    settings = {
        "model": "Doubao-1.5-pro-32k",
        "messages": [system("The manual.")],
        "base_url": base_url,
        "store": store,
    }
    key = {"CTXCACHE_API_KEY": os.environ["CTXCACHE_API_KEY"]}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": key})
    if kill:
        threading.Thread(target=kill_a_worker, args=(base_url,), daemon=True).start()
    questions = ray.data.from_items([{"question": f"q{n}", "id": n} for n in range(int(count))])
    answered = questions.map_batches(
        PrefixAsker,
        fn_constructor_kwargs=settings,
        batch_size=100,
        batch_format=batch_format,
        compute=ray.data.ActorPoolStrategy(size=2),
        num_cpus=0.5,
    )
    print(json.dumps(answered.take_all()))


if __name__ == "__main__":
    main()
