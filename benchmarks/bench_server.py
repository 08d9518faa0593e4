"""The server compared with mlx_lm.server: throughput, time to the first token, a long chat, memory.

Each server runs in a separate process with the same model of random weights, which is so small that the
server and not the model is measured. This process sends requests to one server at a time over raw sockets;
the others are stopped (SIGSTOP), because some poll. Answers never end before their last token, so all streams
have the same length. mlx-lm's BatchGenerator without any server shows the model's share of the time. `mlxk
serve` of mlx-knife is also measured if MLXK_BENCH_KNIFE names an environment with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file, save_file

from benchmarks import peers
from benchmarks.measure import Row, arguments, finish, scratch, table
from mlxk_tui.demo.layout import RepoLayout
from tests.engine.small_models import SPECIAL, make_model

MODEL = "mlx-community/Bench-Instruct"
TOKENS = 160
"""Length of each stream in the throughput runs."""
BUDGETS = {1: 1.0, 8: 1 / 1.5, 32: 1 / 1.5}
"""Number of clients -> maximum time relative to mlx_lm.server's."""
BUSY = 0.3
"""Maximum time to the first token while another stream runs, relative to mlx_lm.server's."""
START_S = 60.0
_TEXT = re.compile(rb'"(?:text|content)": ?"[^"]')
"""Matches the first chunk with text; some servers send an empty chunk at once."""
_BARE = """
import sys, time
import mlx.core as mx
from mlx_lm import load
from mlx_lm.generate import BatchGenerator
model, tokenizer = load(sys.argv[1])
def greedy(logprobs):
    return mx.argmax(logprobs, axis=-1)
for line in sys.stdin:
    clients, tokens = map(int, line.split())
    texts = [f"{n} {time.time_ns()}: hello, world! How are you today?" for n in range(clients)]
    prompts = [tokenizer.encode(text) for text in texts]
    begin, ended = time.perf_counter(), 0
    batch = BatchGenerator(model, completion_batch_size=32, prefill_batch_size=8)
    batch.insert(prompts, max_tokens=[tokens] * clients, samplers=[greedy] * clients)
    while ended < clients:
        ended += sum(one.finish_reason is not None for one in batch.next()[1])
    batch.close()
    print(time.perf_counter() - begin, flush=True)
"""


@dataclass(frozen=True)
class Contestant:
    """A running server."""

    label: str
    port: int
    model: str
    process: psutil.Process

    @property
    def memory_mb(self) -> float:
        """Resident memory of the process and its children, in MB."""
        return sum(one.memory_info().rss for one in self.family) / 1e6

    @property
    def family(self) -> list[psutil.Process]:
        """The process and its children."""
        return [self.process, *self.process.children(recursive=True)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the server run only inside the block."""
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        """Send a signal to the process and its children."""
        for process in self.family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class _Bare:
    """mlx-lm's BatchGenerator in a separate process; a context manager."""

    def __init__(self, snapshot: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BARE, str(snapshot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.seconds(8)  # warms up

    def __enter__(self) -> _Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def seconds(self, streams: int) -> float:
        """Return the time for this many streams."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{streams} {TOKENS}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@dataclass(frozen=True)
class Answer:
    """Times of a stream, in seconds since the request."""

    first: float
    whole: float


def measure(rounds: int) -> list[Row]:
    """Return the rows of this benchmark."""
    with scratch("server") as folder, ExitStack() as stack:
        snapshot = _make(folder)
        contestants = [stack.enter_context(_ours(folder)), stack.enter_context(_mlx_lm(snapshot))]
        if os.environ.get(peers.KNIFE_VARIABLE):
            contestants.append(stack.enter_context(_knife(folder)))
        ours, *others = contestants
        bare = stack.enter_context(_Bare(snapshot))
        for contestant in contestants:  # loads, compiles, warms up
            with contestant.running():
                for clients in (1, 8):
                    asyncio.run(_together(contestant, clients, 24))
        rows: list[Row] = []
        for clients, share in BUDGETS.items():
            taken = in_turns(contestants, rounds, partial(_throughput, clients))
            floor = statistics.median(bare.seconds(clients) for _ in range(rounds))
            rows.append(
                Row(f"{clients} streams, whole", taken[ours.label] * 1000, "the model alone", floor * 1000)
            )
            for other in others:
                rates = ":".join(f"{clients * TOKENS / taken[one.label]:,.0f}" for one in (ours, other))
                what = f"{clients} streams, {rates} tok/s"
                rows.append(_row(what, taken, ours, other, share if other is others[0] else None))
        tasks: list[tuple[str, Callable[[Contestant], float], float | None]] = [
            ("first token, idle", _idle, None),
            ("first token while one streams", _busy, BUSY),
            ("first token, 2nd turn of 3,000", _second_turn, None),
        ]
        for what, task, budget in tasks:
            taken = in_turns(contestants, rounds, task)
            rows += [_row(what, taken, ours, one, budget if one is others[0] else None) for one in others]
        return rows + [Row("memory", ours.memory_mb, one.label, one.memory_mb, unit="MB") for one in others]


def _row(
    what: str, taken: dict[str, float], ours: Contestant, other: Contestant, budget: float | None
) -> Row:
    """Return a line of the table, in milliseconds."""
    return Row(what, taken[ours.label] * 1000, other.label, taken[other.label] * 1000, budget=budget)


def in_turns(
    contestants: list[Contestant], rounds: int, work: Callable[[Contestant], float]
) -> dict[str, float]:
    """Return the median of each server, in seconds, by label."""
    taken: dict[str, list[float]] = {one.label: [] for one in contestants}
    for _ in range(rounds):
        for one in contestants:
            with one.running():
                taken[one.label].append(work(one))
            print(f"{one.label}: {taken[one.label][-1] * 1000:,.1f} ms", file=sys.stderr, flush=True)
    return {label: statistics.median(times) for label, times in taken.items()}


def _throughput(clients: int, one: Contestant) -> float:
    return max(answer.whole for answer in asyncio.run(_together(one, clients, TOKENS)))


def _idle(one: Contestant) -> float:
    return asyncio.run(_stream(one, _fresh_prompt(), 4)).first


def _busy(one: Contestant) -> float:
    async def work() -> float:
        long = asyncio.create_task(_stream(one, _fresh_prompt(), 600))
        await asyncio.sleep(0.25)  # it is streaming by now
        first = (await _stream(one, _fresh_prompt(), 4)).first
        await long
        return first

    return asyncio.run(work())


def _second_turn(one: Contestant) -> float:
    """Send two turns of a chat with about 3,000 tokens; only the last turn is new."""
    history = [
        {"role": "user", "content": _fresh_prompt()},
        {"role": "assistant", "content": "The quick brown fox jumps over the lazy dog. " * 240},
        {"role": "user", "content": "Hello"},
    ]
    more = [{"role": "assistant", "content": "Hello, world!"}, {"role": "user", "content": "How are you?"}]

    async def work() -> float:
        await _stream(one, history, 8)
        return (await _stream(one, history + more, 8)).first

    return asyncio.run(work())


async def _together(one: Contestant, clients: int, tokens: int) -> list[Answer]:
    return await asyncio.gather(*(_stream(one, _fresh_prompt(), tokens) for _ in range(clients)))


_count = 0


def _fresh_prompt() -> str:
    """Return a prompt that is in no cache."""
    global _count  # noqa: PLW0603 - the script's counter
    _count += 1
    return f"{_count} {time.time_ns()}: hello, world! How are you today?"


async def _stream(one: Contestant, prompt: str | list[dict[str, str]], tokens: int) -> Answer:
    """Request a stream and read it to its end.

    Raises:
        SystemExit: the server returned an error, or sent too few tokens.
    """
    body: dict[str, Any] = {"model": one.model, "max_tokens": tokens, "temperature": 0, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    if isinstance(prompt, str):
        path, body["prompt"] = "/v1/completions", prompt
    else:
        path, body["messages"] = "/v1/chat/completions", prompt
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{one.port}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    begin = time.perf_counter()
    writer.write(f"{head}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw)
    first, got = 0.0, b""
    while b"[DONE]" not in got[-400:]:
        part = await reader.read(65536)
        if not part:
            raise SystemExit(f"{one.label} closed the stream early: {got[-500:]!r}")
        got += part
        if not first and _TEXT.search(got):
            first = time.perf_counter() - begin
    whole = time.perf_counter() - begin
    writer.close()
    if f'"completion_tokens":{tokens}'.encode() not in got.replace(b": ", b":") and "knife" not in one.label:
        raise SystemExit(f"{one.label} did not send {tokens} tokens: {got[-700:]!r}")
    return Answer(first or whole, whole)  # without text, the end counts as the first token


def _make(folder: Path) -> Path:
    """Write the model into a cache and return its snapshot."""
    made = make_model(folder / "made", hidden=32, layers=1, context=8192)
    weights = load_file(made / "model.safetensors")
    # A row of zeros is never the most likely token: no special token, so no early end.
    weights["model.embed_tokens.weight"][: len(SPECIAL)] = np.float32(0)
    save_file(weights, made / "model.safetensors")
    repo = RepoLayout(folder / "hub", MODEL)
    snapshot = repo.add_snapshot("0" * 40, {path.name: path.read_bytes() for path in made.iterdir()})
    repo.set_ref("main", "0" * 40)
    return snapshot


def free_port() -> int:
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def server(
    label: str,
    port: int,
    model: str,
    argv: list[str],
    folder: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Contestant]:
    """Run a server until the block ends.

    Raises:
        SystemExit: the server does not listen in time.
    """
    log = folder / f"{label.split(maxsplit=1)[0]}-{port}.log"
    with open(log, "wb") as stream:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={
                **os.environ,
                "HF_HUB_CACHE": str(folder / "hub"),
                "HF_HOME": str(folder),
                "HF_HUB_OFFLINE": "1",
                **(variables or {}),
            },
        )
    contestant: Contestant | None = None
    try:
        end = time.monotonic() + START_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if child.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{label} is not listening: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.1)
        contestant = Contestant(label, port, model, psutil.Process(child.pid))
        contestant.signal(signal.SIGSTOP)
        yield contestant
    finally:
        if contestant is not None:
            contestant.signal(signal.SIGCONT)
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _ours(folder: Path) -> Any:
    port = free_port()
    argv = [sys.executable, "-m", "mlxk_tui_headless", "serve", MODEL, "--port", str(port), "--json"]
    return server("mlxk-headless serve", port, MODEL, argv, folder)


def _mlx_lm(snapshot: Path) -> Any:
    port = free_port()
    argv = [sys.executable, "-m", "mlx_lm.server", "--model", str(snapshot), "--port", str(port)]
    return server("mlx_lm.server", port, "default_model", [*argv, "--host", "127.0.0.1"], snapshot.parents[3])


def _knife(folder: Path) -> Any:
    command, version = peers.knife()
    port = free_port()
    argv = [command, "serve", "--host", "127.0.0.1", "--port", str(port)]
    return server(f"mlx-knife {version}", port, MODEL, argv, folder)


def main() -> int:
    """Run the benchmark and print its results."""
    options = arguments(__doc__ or "").parse_args()
    rows = measure(options.rounds)
    table("The server and its peers, medians of one run", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
