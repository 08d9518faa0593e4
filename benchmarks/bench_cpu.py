"""Linux without a GPU: our server compared with mlx_lm.server as pip installs it, with a real model.

Both run SmolLM2-135M-Instruct, in fp32 and with 4-bit weights (`make models` downloads them), and get
requests over HTTP in turn; the idle one is stopped (SIGSTOP). `mlx_lm.server` processes seven prompt tokens
per second with the BLAS of mlx's wheel, so a round takes minutes. A short request beside the prefill of a
long one is compared with our own server without the library: `MLXK_BLAS=off`, weights as stored. The memory
of layers that are expanded on the fly is the peak that the engine reports.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.bench_server import Contestant, free_port, in_turns, server
from benchmarks.measure import ROOT, Row, arguments, finish, scratch, table
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Finished, GenerationRequest, SamplingParams
from mlxk_tui.engine.memory import WeightsPolicy
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.health.machine import may_have_gpu

MODELS = {"smollm2": "fp32", "smollm2_4bit": "4 bit"}
PROMPT_TOKENS, STREAM_TOKENS, TOGETHER_TOKENS, CLIENTS = 1000, 32, 24, 8
BESIDE_TOKENS = 400
"""Length of the prompt beside the short request: its prefill takes a minute without a library."""
FIRST, ONE, EIGHT, BESIDE, HELD = 0.1, 1 / 1.5, 1 / 5, 1.0, 1.3
"""Budgets relative to the peer's time, and to the stored size."""
_SENTENCE = "The library at the corner of the street opens at nine and closes at five, but not today. "
_SENTENCE_TOKENS = 20


@dataclass(frozen=True)
class Answer:
    """Times of a stream, in seconds since the request."""

    first: float
    whole: float
    tokens: int


@dataclass(frozen=True)
class RealModel:
    """A model created by `make models`."""

    name: str
    cache: Path
    folder: Path


def real_model(key: str) -> RealModel | None:
    """Return a model by its key in models.json; None if it does not exist."""
    cache = Path(os.environ.get("MLXK2_REAL_MODELS") or ROOT / ".real").expanduser()
    try:
        found = json.loads((cache / "models.json").read_text())[key]
        folder = cache / f"models--{found['name'].replace('/', '--')}" / "snapshots" / found["revision"]
        (folder / "config.json").stat()
    except (OSError, ValueError, KeyError):
        return None
    return RealModel(found["name"], cache, folder)


def measure(rounds: int, tokens: int = PROMPT_TOKENS) -> list[Row]:
    """Return the rows of this benchmark; `tokens` is the length of the long prompt."""
    if may_have_gpu() or importlib.util.find_spec("scipy_openblas32") is None:
        print("This machine may have a GPU, or has no BLAS library: skipping the CPU benchmark")
        return []
    rows: list[Row] = []
    for key, kind in MODELS.items():
        model = real_model(key)
        if model is None:
            print(f"{key} is missing: run `make models`")
            continue
        with scratch("cpu") as folder, ExitStack() as stack:
            model = _linked(model, folder / "cache")
            ours = stack.enter_context(_ours("mlxk-headless serve", model, folder))
            theirs = stack.enter_context(_mlx_lm(model, folder))
            before = stack.enter_context(
                _ours("ours, BLAS off", model, folder, MLXK_BLAS="off", MLXK_CPU_WEIGHTS="stored")
            )
            for one in (ours, theirs, before):  # loads
                with one.running():
                    _ask(one, "Hello", 2)
            tasks: list[tuple[str, Contestant, float, Callable[[Contestant], float]]] = [
                (f"{kind}: first token, {tokens:,} tokens", theirs, FIRST, partial(_first, tokens)),
                (f"{kind}: a token of one stream", theirs, ONE, _one),
                (f"{kind}: a token of {CLIENTS} streams", theirs, EIGHT, _eight),
                (f"{kind}: short beside a long prefill", before, BESIDE, _beside),
            ]
            for label, peer, budget, task in tasks:
                taken = in_turns([ours, peer], rounds, task)
                mine, other = taken[ours.label] * 1000, taken[peer.label] * 1000
                rows.append(Row(label, mine, peer.label, other, budget=budget))
            if key.endswith("4bit"):
                for length in (BESIDE_TOKENS, tokens):
                    peak, stored = asyncio.run(_memory(model.name, model.folder, length))
                    what = f"{kind}: memory for {length:,} tokens, expanded"
                    rows.append(Row(what, peak, "weights as stored", stored, "MB", HELD))
    return rows


def _linked(model: RealModel, cache: Path) -> RealModel:
    """Return the same files as a repo of mlx-community, so that it is recognized as an MLX model."""
    name = f"mlx-community/{model.name.rpartition('/')[2]}"
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / model.folder.name
    for folder in (snapshot, repo / "blobs", repo / "refs"):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text(model.folder.name)
    for file in model.folder.iterdir():
        blob = file.resolve()
        try:
            os.link(blob, repo / "blobs" / blob.name)
        except OSError:  # another disk
            shutil.copy(blob, repo / "blobs" / blob.name)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return RealModel(name, cache, snapshot)


def _first(tokens: int, one: Contestant) -> float:
    return _ask(one, _prompt(tokens), 2).first


def _one(one: Contestant) -> float:
    answer = _ask(one, _prompt(40), STREAM_TOKENS)
    return (answer.whole - answer.first) / max(1, answer.tokens - 1)


def _eight(one: Contestant) -> float:
    """Return the time per token of all streams, including prompts of a dozen tokens."""
    prompts = [f"{number} {time.time_ns()} Once upon a time" for number in range(CLIENTS)]
    begin = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda prompt: _ask(one, prompt, TOGETHER_TOKENS), prompts))
    return (time.perf_counter() - begin) / sum(answer.tokens for answer in answers)


def _beside(one: Contestant) -> float:
    long = threading.Thread(target=_ask, args=(one, _prompt(BESIDE_TOKENS), 2))
    long.start()
    time.sleep(0.5)  # its prefill is running by now
    first = _ask(one, f"{time.time_ns()} Hello", 2).first
    long.join()
    return first


def _prompt(tokens: int) -> str:
    """Return a prompt of about this many tokens that is in no cache."""
    return f"{time.time_ns()} " + _SENTENCE * max(1, (tokens - 14) // _SENTENCE_TOKENS)


def _ask(one: Contestant, prompt: str, tokens: int) -> Answer:
    """Read a stream to its end.

    Raises:
        SystemExit: the server returned an error, or the stream was incomplete.
    """
    body = {"model": one.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True}
    body["stream_options"] = {"include_usage": True}
    connection = HTTPConnection("127.0.0.1", one.port, timeout=3600)
    begin = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    first, count = 0.0, 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        part: dict[str, Any] = json.loads(line[6:])
        if not first and any(choice.get("text") for choice in part.get("choices", ())):
            first = time.perf_counter() - begin
        count = (part.get("usage") or {}).get("completion_tokens", count)
    whole = time.perf_counter() - begin
    connection.close()
    if response.status != 200 or not count:
        raise SystemExit(f"{one.label} returned status {response.status} and {count} tokens")
    return Answer(first or whole, whole, count)


async def _memory(name: str, folder: Path, tokens: int) -> tuple[float, float]:
    """Return the peak memory of a prompt, layers expanded, without its KV cache; and the stored size. In MB.

    The peak contains the weights as stored, the expanded layer and the activations. The KV cache is
    subtracted, because it would be as large with any weights.
    """
    engine = Engine(weights=WeightsPolicy(CpuWeights.STORED))
    try:
        runnable = RunnableModel(name, folder)
        loaded = await engine.load(runnable)
        request = GenerationRequest(
            prompt=_prompt(tokens), sampling=SamplingParams(temperature=0), max_tokens=2
        )
        finished = [
            event async for event in engine.generate(runnable, request) if isinstance(event, Finished)
        ]
        used = finished[0].usage.prompt_tokens + finished[0].usage.completion_tokens
        peak = finished[0].timings.peak_memory_bytes - _kv_cache_bytes(folder, used)
        return peak / 1e6, loaded.stored_bytes / 1e6
    finally:
        await engine.stop()


def _kv_cache_bytes(folder: Path, tokens: int) -> int:
    """Return the size of a float32 KV cache, which mlx-lm allocates in steps of 256 tokens."""
    config = json.loads((folder / "config.json").read_text())
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    of_a_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head_dim * 4
    return int(-(-tokens // 256) * 256 * of_a_token)


def _ours(label: str, model: RealModel, folder: Path, **variables: str) -> AbstractContextManager[Contestant]:
    port = free_port()
    argv = [sys.executable, "-m", "mlxk_tui_headless", "--cache-dir", str(model.cache), "serve", model.name]
    return server(label, port, model.name, [*argv, "--port", str(port), "--json"], folder, variables)


def _mlx_lm(model: RealModel, folder: Path) -> AbstractContextManager[Contestant]:
    port = free_port()
    argv = [sys.executable, "-m", "mlx_lm.server", "--model", str(model.folder), "--port", str(port)]
    return server("mlx_lm.server", port, "default_model", [*argv, "--host", "127.0.0.1"], folder)


def main() -> int:
    """Run the benchmark and print its results."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--tokens", type=int, default=PROMPT_TOKENS, help="length of the long prompt")
    options = parser.parse_args()
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    rows = measure(options.rounds, options.tokens)
    table("Linux without a GPU, medians of one run", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
