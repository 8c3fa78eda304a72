"""What ctxcache costs beside other SDKs and relays, and beside bare aiohttp: `python -m benchmarks --help`.

How it measures:

- *One server for all*, in a process of its own (`server`), on raw asyncio protocols with prebuilt bytes. The `model` of
  a request names the answer (`loads`), so every client asks for the same bytes through its own public API.
- *The server is never the bottleneck*, and that is measured, not believed: each sample carries the server's own CPU
  share by the operating system's accounting, and how late its writes were; the scenario `ceiling` measures how fast a
  reader that does next to nothing is served. A sample whose server was busier than `BUSY_SHARE`, or late, is flagged.
- *Each client in a process of its own* (`worker`), fresh for each round, so that memory and imports are its own. Client
  and server are pinned to different cores where there are two. Rounds alternate: A B C D A B C D …
- *CPU by the operating system* (`getrusage`), wall time beside it. A figure is the median of its rounds with its range.
- *A relay* stands between raw sockets and the server, started anew for each round. Its CPU and memory are those of all
  its processes, read from outside.

Where is what: `clients/` one small adapter a client · `relays/` the relays, each described once, and how one is run ·
`scenarios/` one file a scenario: its cases, and how one is measured · `server`, `pacer`, `loads`, `sse_workloads`,
`decoders`, `folding` what they work on · `run`, `processes` the plan and who carries it out · `results`, `analysis`,
`targets`, `report`, `pictures`, `compare` what is made of it.
"""
