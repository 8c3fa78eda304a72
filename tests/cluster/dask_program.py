"""A driver with a Dask cluster of two worker processes: `python dask_program.py QUESTIONS METHOD KILL BASE_URL STORE`.

METHOD is `call`, a coroutine on the workers' event loops, or `run`, in their threads. Prints the answered rows as JSON.
"""

import json
import os
import signal
import sys

from distributed import Client, LocalCluster, as_completed

from ctxcache import system
from ctxcache.cluster import PrefixAsker

BATCH = 100


def main() -> None:
    """Ask; if told to, kill a worker when a tenth of the batches are answered."""
    count, method, kill, base_url, store = sys.argv[1:]
    asker = PrefixAsker(model="Doubao-1.5-pro-32k", messages=[system("The manual.")], base_url=base_url, store=store)
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        starts = range(0, int(count), BATCH)
        batches = [{"question": [f"q{n}" for n in range(start, start + BATCH)]} for start in starts]
        answering = client.map(asker if method == "call" else asker.run, batches)
        workers = client.run(os.getpid)
        for done, _ in enumerate(as_completed(answering)):
            if kill == "kill" and done == len(batches) // 10:
                os.kill(next(iter(workers.values())), signal.SIGKILL)
        print(json.dumps(client.gather(answering)))


if __name__ == "__main__":
    main()
