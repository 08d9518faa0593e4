"""Serving against mlx_lm.server: speed with many clients, time to the first token, a long chat, memory.

Each server is a process of its own with the same model of random weights, so small that the server and
not the model is what is measured, and is asked in turns over raw sockets by this process; the ones whose
turn it is not are stopped (SIGSTOP), since some poll. Answers never end before their last token, so that
every stream has the same length. mlx-lm's BatchGenerator alone, without any server, shows how much of
the time is the model's. `mlxk serve` of mlx-knife is measured too where MLXK_BENCH_KNIFE names an
environment that has it.
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
"""Length of each stream of the throughput runs."""
BUDGETS = {1: 1.0, 8: 1 / 1.5, 32: 1 / 1.5}
"""Clients to the largest share of mlx_lm.server's time that ours may take."""
BUSY = 0.3
"""Largest share of mlx_lm.server's time to the first token while another stream runs."""
START_S = 60.0
_SAID = re.compile(rb'"(?:text|content)": ?"[^"]')
"""The first chunk with text in it; some send one without any as soon as they are asked."""
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
    """A server that runs."""

    label: str
    port: int
    model: str
    process: psutil.Process

    @property
    def memory_mb(self) -> float:
        """Resident megabytes of it and its children."""
        return sum(one.memory_info().rss for one in self.family) / 1e6

    @property
    def family(self) -> list[psutil.Process]:
        """It and its children."""
        return [self.process, *self.process.children(recursive=True)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run inside the block only."""
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        for process in self.family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class _Bare:
    """mlx-lm's BatchGenerator in a process of its own; a context."""

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
        """Return how long so many streams take."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{streams} {TOKENS}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@dataclass(frozen=True)
class Answer:
    """What a stream took, in seconds from the request on."""

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
        works: list[tuple[str, Callable[[Contestant], float], float | None]] = [
            ("first token, idle", _idle, None),
            ("first token while one streams", _busy, BUSY),
            ("first token, 2nd turn of 3,000", _second_turn, None),
        ]
        for what, work, budget in works:
            taken = in_turns(contestants, rounds, work)
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
    """Return the median of each contestant, in seconds, by its label."""
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
        await asyncio.sleep(0.25)  # it streams by now
        first = (await _stream(one, _fresh_prompt(), 4)).first
        await long
        return first

    return asyncio.run(work())


def _second_turn(one: Contestant) -> float:
    """Ask twice in a chat of about 3,000 tokens; only the last turn is new."""
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
    """Return a prompt that no cache holds."""
    global _count  # noqa: PLW0603 - a counter of this script
    _count += 1
    return f"{_count} {time.time_ns()}: hello, world! How are you today?"


async def _stream(one: Contestant, prompt: str | list[dict[str, str]], tokens: int) -> Answer:
    """Ask for a stream and read it to its end.

    Raises:
        SystemExit: the server refused, or sent fewer tokens than it should.
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
            raise SystemExit(f"{one.label} broke off: {got[-500:]!r}")
        got += part
        if not first and _SAID.search(got):
            first = time.perf_counter() - begin
    whole = time.perf_counter() - begin
    writer.close()
    if f'"completion_tokens":{tokens}'.encode() not in got.replace(b": ", b":") and "knife" not in one.label:
        raise SystemExit(f"{one.label} did not send {tokens} tokens: {got[-700:]!r}")
    return Answer(first or whole, whole)  # an answer without text: its end is the first that is seen


def _make(folder: Path) -> Path:
    """Write the model into a cache and return its snapshot."""
    made = make_model(folder / "made", hidden=32, layers=1, context=8192)
    weights = load_file(made / "model.safetensors")
    # A row of zeros is never the likeliest: no special token, so no end before the last token.
    weights["model.embed_tokens.weight"][: len(SPECIAL)] = np.float32(0)
    save_file(weights, made / "model.safetensors")
    repo = RepoLayout(folder / "hub", MODEL)
    snapshot = repo.add_snapshot("0" * 40, {path.name: path.read_bytes() for path in made.iterdir()})
    repo.set_ref("main", "0" * 40)
    return snapshot


def free_port() -> int:
    """Return a port that nobody has now."""
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
        SystemExit: it does not listen in time.
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
                raise SystemExit(f"{label} does not listen: {log.read_text(errors='replace')[-1500:]}")
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
    """Run this benchmark alone."""
    options = arguments(__doc__ or "").parse_args()
    rows = measure(options.rounds)
    table("The server against its peers, medians of one run", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
