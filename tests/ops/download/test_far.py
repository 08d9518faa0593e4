"""Downloads from a far hub: latency, limited connections, resets, kills, and unusual mirrors."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import random
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from benchmarks.far_line import FarLine
from mlxk_tui.demo.hub import Generated, LocalHub
from mlxk_tui.ops.download.download import DownloadOptions
from tests.support.downloads import Model, small_files
from tests.support.waiting import until

SIZE = 12 << 20
PATIENT = DownloadOptions(backoff_s=0.05, longest_backoff_s=0.2)
"""Has the default time-outs, because a loaded machine may be slow."""


@pytest.fixture(scope="module")
def local_hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


@pytest.fixture
def line(local_hub: LocalHub) -> Iterator[FarLine]:
    local_hub.faults.clear()
    local_hub.requests.clear()
    local_hub.rate_per_connection = None
    ports = [urlsplit(url).port or 0 for url in (local_hub.url, local_hub.cdn_url)]
    with FarLine(ports, round_trip_s=0.06, rate=2e6) as line:
        yield line


@pytest.fixture
def model(local_hub: LocalHub, line: FarLine, hub: Path) -> Model:
    """Return a model with one large file of weights and some small files."""
    commit = local_hub.add_repo("org/model", small_files(SIZE))
    return Model(local_hub, "org/model", commit, hub, endpoint=line.address(local_hub.url))


async def test_large_file_needs_few_requests_and_nothing_twice(model: Model) -> None:
    done = await model.download(PATIENT)
    model.check_whole()
    parts = model.hub.requests.matching("*model.safetensors", origin="cdn")
    assert len({part.connection for part in parts}) >= 4
    assert len(parts) <= 40
    assert done.bytes_downloaded == model.size


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))])
async def test_killed_process_loses_at_most_five_percent(model: Model, line: FarLine, seed: int) -> None:
    """SIGKILL at a random time; the progress events show what had been written."""
    enough = random.Random(seed).uniform(0.05, 0.9) * SIZE
    child = await asyncio.create_subprocess_exec(*model.command(), stdout=subprocess.PIPE)
    await until(lambda: line.bytes_sent >= enough)
    with contextlib.suppress(ProcessLookupError):  # it may have finished on a loaded machine
        child.kill()
    output, _ = await child.communicate()
    written = max((count for _, count, *_ in map(json.loads, output.splitlines())), default=0)
    model.check_nothing_wrong()
    line.rate = None
    done = await model.download(PATIENT)
    model.check_whole()
    assert done.bytes_reused >= 0.95 * written


@pytest.mark.slow
async def test_download_continues_after_resets_of_all_connections(model: Model, line: FarLine) -> None:
    """As if a laptop changed its network."""
    task = asyncio.create_task(model.download(PATIENT))
    for share in (0.2, 0.5, 0.8):
        await until(lambda share=share: line.bytes_sent >= share * SIZE)  # type: ignore[misc]  # bound early
        line.reset()
    await task
    model.check_whole()


@pytest.mark.slow
async def test_download_continues_after_a_slow_period(model: Model, line: FarLine) -> None:
    line.rate = 5e4
    task = asyncio.create_task(model.download(PATIENT))
    await until(lambda: line.bytes_sent >= 300_000)
    line.rate = 2e6
    await task
    model.check_whole()


@pytest.mark.slow
async def test_process_that_was_suspended_continues_over_new_connections(model: Model, line: FarLine) -> None:
    line.rate = 5e4  # so that it cannot finish before it is suspended
    child = await asyncio.create_subprocess_exec(*model.command(), stdout=subprocess.DEVNULL)
    await until(lambda: line.bytes_sent >= 300_000)
    os.kill(child.pid, signal.SIGSTOP)
    line.reset()
    line.rate = 2e6
    os.kill(child.pid, signal.SIGCONT)
    assert await child.wait() == 0
    model.check_whole()


class _Mirror(BaseHTTPRequestHandler):
    """Serves one file in its own way."""

    protocol_version = "HTTP/1.1"
    content = b""
    kind = ""

    def do_GET(self) -> None:
        content = type(self).content
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(requested[1]), int(requested[2]) + 1) if requested else (0, len(content))
        if self.kind == "to the end" and requested:
            end = len(content)
        elif self.kind == "whole blocks" and requested:
            start, end = start - start % 300_007, min(len(content), end + 70_001)
        elif self.kind == "no ranges":
            start, end, requested = 0, len(content), None
        elif self.kind == "whole file as a range":
            start, end = 0, len(content)
        body = content[start:end]
        self.send_response(206 if requested else 200)
        if self.kind == "gzip" and not requested:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        if self.kind == "closes":
            self.send_header("Connection", "close")
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:  # the client does not need the rest
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("to the end", 5_000_000),
        ("whole blocks", 5_000_000),
        ("no ranges", 5_000_000),
        ("whole file as a range", 5_000_000),
        ("closes", 5_000_000),
        ("gzip", 50_000),
    ],
)
async def test_unusual_responses_of_mirrors_are_understood(
    kind: str, size: int, local_hub: LocalHub, hub: Path
) -> None:
    commit = local_hub.add_repo("org/model", {"model.safetensors": Generated(size, 3)})
    content = local_hub.read("org/model", "model.safetensors")
    handler = type("Mirror", (_Mirror,), {"content": content, "kind": kind})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}/a/path"
        model = Model(local_hub, "org/model", commit, hub, endpoint=endpoint)
        done = await model.download(PATIENT)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    model.check_whole()
    assert kind == "whole file as a range" or done.bytes_downloaded <= 1.01 * size
