"""The engine compared with mlx-lm: one stream, eight streams, the second turn of a chat, a late request."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import ROOT, Row, arguments, finish, scratch, table
from mlxk_tui.engine.client import Engine, GenerationStream
from mlxk_tui.engine.generation import Delta, Finished, GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel
from tests.engine.small_models import make_model

SHORT = "Hello, world! How are you today?"
TOKENS = 200
HISTORY_TOKENS = 1500
_PEER = """
import sys, time
from mlx_lm import load, stream_generate
model, tokenizer = load(sys.argv[1])
prompt = tokenizer.encode(sys.argv[2])
for line in sys.stdin:
    begin = time.perf_counter()
    for _ in stream_generate(model, tokenizer, prompt, max_tokens=int(line)):
        pass
    print(time.perf_counter() - begin, flush=True)
"""


class Peer:
    """mlx_lm.stream_generate in a separate process, one generation at a time."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PEER, str(folder), SHORT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )

    def seconds(self, tokens: int) -> float:
        """Return the time for this many tokens."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{tokens}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Stop the process."""
        self._process.communicate()


class Ours:
    """The engine with one model; every request is greedy and runs to its last token."""

    def __init__(self, folder: Path) -> None:
        self.engine = Engine()
        self._model = RunnableModel("bench", folder)

    def request(self, prompt: str, tokens: int) -> GenerationRequest:
        """Return a greedy request."""
        # Without end-of-turn tokens, so that both sides generate the same number of tokens.
        bias = dict.fromkeys((0, 2), -100.0) if tokens > 1 else {}
        return GenerationRequest(
            prompt=prompt, max_tokens=tokens, sampling=SamplingParams(temperature=0, logit_bias=bias)
        )

    def stream(self, prompt: str, tokens: int) -> GenerationStream:
        """Start a generation."""
        return self.engine.generate(self._model, self.request(prompt, tokens))

    async def seconds(self, prompt: str = SHORT, tokens: int = TOKENS) -> float:
        """Return the duration of a generation."""
        begin = time.perf_counter()
        async for event in self.stream(prompt, tokens):
            if isinstance(event, Finished):
                assert event.usage.completion_tokens == tokens, event
        return time.perf_counter() - begin

    async def first_token(self, prompt: str) -> float:
        """Return the seconds to the first token."""
        begin = time.perf_counter()
        stream = self.stream(prompt, 8)
        async for event in stream:
            if isinstance(event, Delta):
                break
        taken = time.perf_counter() - begin
        await stream.aclose()
        return taken


async def one_stream(ours: Ours, peer: Peer, rounds: int) -> list[Row]:
    mine, theirs = [], []
    for _ in range(rounds + 1):
        mine.append(TOKENS / await ours.seconds())
        theirs.append(TOKENS / peer.seconds(TOKENS))
    # Rates are better when larger, so the ratio is inverted.
    fast, raw = statistics.median(mine[1:]), statistics.median(theirs[1:])
    return [
        Row("one stream, ms per token", 1000 / fast, "mlx_lm.stream_generate", 1000 / raw, budget=1 / 0.95)
    ]


async def eight_streams(ours: Ours, rounds: int) -> list[Row]:
    together, in_sequence = [], []
    prompts = [f"{number} {SHORT}" for number in range(8)]
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        await asyncio.gather(*(ours.seconds(prompt, 60) for prompt in prompts))
        together.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for prompt in prompts:
            await ours.seconds(prompt, 60)
        in_sequence.append(time.perf_counter() - begin)
    mine, theirs = (statistics.median(times[1:]) * 1000 for times in (together, in_sequence))
    return [Row("eight streams at once", mine, "the same eight in sequence", theirs, budget=1.0)]


async def second_turn(ours: Ours, rounds: int) -> list[Row]:
    cold, warm = [], []
    text = "The quick brown fox jumps over the lazy dog. "
    for number in range(rounds + 1):
        history = f"{number} " + text * (HISTORY_TOKENS // 22)
        cold.append(await ours.first_token(history))
        warm.append(await ours.first_token(f"{history} And now?"))
    mine, theirs = (statistics.median(times[1:]) * 1000 for times in (warm, cold))
    return [Row("second turn, first token", mine, "the same history cold", theirs, budget=0.5)]


async def late_request(ours: Ours, rounds: int) -> list[Row]:
    alone, beside = [], []
    for number in range(rounds + 1):
        alone.append(await ours.first_token(f"{number} a {SHORT}"))
        running = ours.stream(f"{number} {SHORT}", 150)
        async for event in running:
            if isinstance(event, Delta):
                break
        beside.append(await ours.first_token(f"{number} b {SHORT}"))
        await running.aclose()
    mine, theirs = (statistics.median(times[1:]) * 1000 for times in (beside, alone))
    return [Row("first token while one streams", mine, "idle", theirs, budget=2.0)]


async def measure(rounds: int) -> list[Row]:
    """Return the rows of this benchmark."""
    with scratch("engine") as folder:
        model = make_model(folder / "model", hidden=192, layers=4, context=8192, endless=True)
        ours, peer = Ours(model), Peer(model)
        try:
            await ours.seconds(tokens=20)
            rows = await one_stream(ours, peer, rounds)
            rows += await eight_streams(ours, max(2, rounds // 2))
            rows += await second_turn(ours, max(2, rounds // 2))
            rows += await late_request(ours, rounds)
        finally:
            await ours.engine.stop()
            peer.close()
    return rows


def main() -> int:
    """Run the benchmark and print its results."""
    options = arguments(__doc__ or "").parse_args()
    if importlib.util.find_spec("mlx_lm") is None:
        print("mlx-lm is not installed: nothing to measure")
        return 0
    os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
    os.chdir(ROOT)
    rows = asyncio.run(measure(options.rounds))
    table("The engine, random weights of 192 x 4", rows)
    return finish(rows, options.strict)


if __name__ == "__main__":
    raise SystemExit(main())
