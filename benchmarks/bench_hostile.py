"""The effect of a hostile client on others: `/health` beside fifty bodies of six megabytes, and memory.

The server runs in a separate process, as started by `mlxk-headless serve`, and is measured from outside.
"""

from __future__ import annotations

import http.client
import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bench_server import _make, _ours
from benchmarks.measure import arguments, scratch

BODIES = 50
LIMIT_S = 0.25
FAULTS = b'{"prompt": [5, ' + b'"a", 5, ' * 750_000 + b"5]}"
TEXTS = FAULTS.replace(b"[5", b'["a"')
IDS = b'{"prompt": [' + b"5," * 3_000_000 + b"5]}"


def ask(port: int, method: str, path: str, body: bytes | None = None) -> int:
    """Send a request and return the status of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def main() -> int:
    """Run the benchmark and print its results."""
    options = arguments(__doc__ or "").parse_args()
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    with scratch("hostile") as folder:
        _make(folder)
        with _ours(folder) as served, served.running():
            over = threading.Event()
            waits: list[float] = []
            most = 0.0

            def watch() -> None:
                nonlocal most
                while not over.is_set():
                    begin = time.perf_counter()
                    ask(served.port, "GET", "/health")
                    waits.append(time.perf_counter() - begin)
                    most = max(most, served.memory_mb)
                    time.sleep(0.02)

            before = served.memory_mb
            watcher = threading.Thread(target=watch)
            watcher.start()
            begin = time.perf_counter()
            with ThreadPoolExecutor(BODIES) as pool:
                bodies = ([FAULTS, TEXTS, IDS] * BODIES)[:BODIES]
                statuses = list(
                    pool.map(lambda body: ask(served.port, "POST", "/v1/completions", body), bodies)
                )
            taken = time.perf_counter() - begin
            over.set()
            watcher.join()
    waits.sort()
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(f"{BODIES} bodies of 6 MB in {taken:.1f} s: {counts}")
    print(
        f"/health: {len(waits)} answers, median {statistics.median(waits) * 1000:.0f} ms, "
        f"longest {waits[-1] * 1000:.0f} ms (limit {LIMIT_S * 1000:.0f} ms)"
    )
    print(f"memory of the server and its processes: {before:,.0f} MB before, at most {most:,.0f} MB")
    return 1 if options.strict and waits[-1] > LIMIT_S else 0


if __name__ == "__main__":
    raise SystemExit(main())
