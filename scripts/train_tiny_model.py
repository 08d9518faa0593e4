"""Train the tiny demo model from scripts/tiny_model/*.yaml and write it in Hugging Face layout.

    .venv/bin/python scripts/train_tiny_model.py --out mlxk_tui/demo/tiny

After a small change of the text, `--resume DIR` continues from a model instead of training from scratch, for
a quick test. The shipped model was trained from scratch.

The same seed, machine, MLX and BLAS give the same bytes. The training processes about 3 million tokens. MLX's
CPU wheel for Linux contains a slow BLAS; with OpenBLAS instead (`LD_PRELOAD=libopenblas.so.0
OPENBLAS_NUM_THREADS=1 MLX_DISABLE_COMPILE=1`) a step is about seven times as fast.
"""

# ruff: noqa: T201 - scripts print their results
# mlx does not declare its exports, and mlx-lm is not typed:
# mypy: disable-error-code="name-defined, attr-defined, no-untyped-call"

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm import generate, load
from mlx_lm.models import qwen3
from tiny_model import corpus, files
from tokenizers import Tokenizer

SIZE = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}


@dataclass(frozen=True)
class Phase:
    """A part of a training stage."""

    share: float
    """Share of all steps."""
    lengths: tuple[tuple[int, float], ...]
    """Tokens of a conversation, and the probability; 0 is a single dialogue."""
    openings: float = 0.0
    """Share of conversations that are cut off after the first tokens of their last answer."""


@dataclass(frozen=True)
class Stage:
    """A training stage, whose learning rate falls to zero; it continues from the previous stage."""

    steps: int
    peak_rate: float
    phases: tuple[Phase, ...]
    emphasis: int


_EVERYTHING = Phase(1.0, ((0, 0.5), (128, 0.26), (512, 0.12), (1024, 0.07), (2048, 0.05)), openings=0.2)
STAGES = (
    Stage(
        1300,
        0.01,
        (
            # Learn which answer belongs to which question: many questions, only the start of each answer.
            Phase(0.25, ((0, 1.0),), openings=0.9),
            # Learn the whole answers.
            Phase(0.40, ((0, 0.5), (128, 0.5)), openings=0.3),
            # Learn them at any position of a chat.
            Phase(0.35, ((0, 0.3), (128, 0.3), (512, 0.25), (1024, 0.1), (2048, 0.05)), openings=0.3),
        ),
        emphasis=1,
    ),
    # Repeat the hard dialogues.
    Stage(1200, 0.006, (_EVERYTHING,), emphasis=2),
    # The last uncertain answers, in two stages with lower rates. `--resume` only trains the last stage, which
    # is enough for a few changed sentences.
    Stage(240, 0.002, (_EVERYTHING,), emphasis=2),
    Stage(600, 0.0015, (_EVERYTHING,), emphasis=2),
)
POOL = 96
"""Number of conversations that are sorted by length before batching, to reduce padding."""
TOKENS_PER_STEP = 1024
CHARACTERS_PER_TOKEN = 3.0
OPENING = 8
"""Number of tokens at the start of an answer with the weight `OPENING_WEIGHT`."""
OPENING_WEIGHT = 4.0
WARM_UP = 20


@dataclass(frozen=True)
class Batch:
    """Token ids, shape (sequences, tokens), and the positions whose prediction is learned."""

    tokens: mx.array
    positions: mx.array
    """Flat indexes into (sequences, tokens - 1)."""
    targets: mx.array
    weights: mx.array
    """Weight of each target in the loss."""


Row = tuple[list[int], list[float]]
"""The tokens of a conversation and their weights in the loss."""


class Batches:
    """Creates batches of conversations of similar length."""

    def __init__(self, sampler: corpus.Sampler, tokenizer: Tokenizer, seed: int) -> None:
        self._sampler = sampler
        self._tokenizer = tokenizer
        self._random = np.random.default_rng(seed)
        self._pad = _id(tokenizer, files.PAD)
        self._ready: list[list[Row]] = []
        self._phase: Phase | None = None

    def next(self, phase: Phase) -> Batch:
        """Return a batch of about `TOKENS_PER_STEP` tokens, or of one longer conversation."""
        if phase is not self._phase or not self._ready:
            self._phase = phase
            self._ready = self._pool(phase)
        rows = self._ready.pop()
        width = max(len(ids) for ids, _ in rows)
        tokens = np.full((len(rows), width), self._pad, dtype=np.int32)
        weights = np.zeros((len(rows), width), dtype=np.float32)
        for index, (ids, counts) in enumerate(rows):
            tokens[index, : len(ids)] = ids
            weights[index, : len(ids)] = counts
        positions = np.flatnonzero(weights[:, 1:])
        targets, counted = (a[:, 1:].reshape(-1)[positions] for a in (tokens, weights))
        return Batch(mx.array(tokens), mx.array(positions), mx.array(targets), mx.array(counted))

    def _pool(self, phase: Phase) -> list[list[Row]]:
        rows = sorted((self._row(phase) for _ in range(POOL)), key=lambda row: len(row[0]))
        batches: list[list[Row]] = [[]]
        for row in rows:
            if batches[-1] and (len(batches[-1]) + 1) * len(row[0]) > TOKENS_PER_STEP:
                batches.append([])
            batches[-1].append(row)
        return [batches[index] for index in self._random.permutation(len(batches))]

    def _row(self, phase: Phase) -> Row:
        lengths, shares = zip(*phase.lengths, strict=True)
        tokens = int(self._random.choice(lengths, p=shares))
        characters = self._random.uniform(0.6, 1.0) * tokens * CHARACTERS_PER_TOKEN
        conversation = self._sampler.conversation(int(characters))
        ids, weights = encode(self._tokenizer, corpus.render(conversation))
        if self._random.random() < phase.openings:
            counts = [index for index, weight in enumerate(weights) if weight == OPENING_WEIGHT]
            ids, weights = ids[: counts[-1] + 1], weights[: counts[-1] + 1]
        return ids, weights


def _id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise SystemExit(f"the tokenizer has no {token}")
    return int(found)


def encode(tokenizer: Tokenizer, pieces: list[tuple[str, bool]]) -> Row:
    """Tokenize the joined text; only the tokens of pieces to learn have a weight.

    The first tokens of an answer have a higher weight, because they decide the rest of the answer.
    """
    starts: list[tuple[int, bool]] = []
    at = 0
    for text, learn in pieces:
        starts.append((at, learn))
        at += len(text)
    encoding = tokenizer.encode("".join(text for text, _ in pieces), add_special_tokens=False)
    weights, piece, within = [], 0, 0
    for begin, _ in encoding.offsets:
        within += 1
        while piece + 1 < len(starts) and starts[piece + 1][0] <= begin:
            piece, within = piece + 1, 0
        weights.append((OPENING_WEIGHT if within < OPENING else 1.0) if starts[piece][1] else 0.0)
    return encoding.ids, weights


def loss(model: nn.Module, batch: Batch) -> mx.array:
    """Return the weighted mean cross entropy (nats per token) of the tokens to learn."""
    hidden = model.model(batch.tokens[:, :-1]).reshape(-1, SIZE["hidden_size"])[batch.positions]
    logits = model.model.embed_tokens.as_linear(hidden)
    losses = nn.losses.cross_entropy(logits, batch.targets)
    return (losses * batch.weights).sum() / batch.weights.sum()


def schedule(peak: float, steps: int) -> Callable[[mx.array], mx.array]:
    """Return a learning rate that rises, stays constant, and falls to zero over the last half."""

    def rate(step: mx.array) -> mx.array:
        rise = mx.minimum(1.0, (step + 1) / min(WARM_UP, steps))
        fall = mx.minimum(1.0, (steps - step) / max(1, steps // 2))
        return peak * rise * (0.5 - 0.5 * mx.cos(math.pi * fall))

    return rate


def phase_at(phases: tuple[Phase, ...], share: float) -> Phase:
    """Return the phase after this share of all steps."""
    for phase in phases:
        if share < phase.share:
            return phase
        share -= phase.share
    return phases[-1]


def train(model: nn.Module, batches: Batches, stage: Stage) -> None:
    """Train one stage and print the loss now and then."""
    steps, rate = stage.steps, schedule(stage.peak_rate, stage.steps)
    matrices = optim.Muon(rate, momentum=0.95, weight_decay=0.0)
    others = optim.AdamW(rate, betas=[0.9, 0.98], weight_decay=0.0)
    optimizer = optim.MultiOptimizer(
        [matrices, others], [lambda path, weight: weight.ndim == 2 and "embed" not in path]
    )
    step_loss = nn.value_and_grad(model, loss)
    began, seen, mean = time.monotonic(), 0, 0.0
    for step in range(steps):
        batch = batches.next(phase_at(stage.phases, step / steps))
        value, gradients = step_loss(model, batch)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        seen += batch.tokens.size
        mean = value.item() if step == 0 else 0.9 * mean + 0.1 * value.item()
        if step % 25 == 24 or step == steps - 1:
            seconds = time.monotonic() - began
            speed = f"{seconds:.0f} s  {seen / seconds:.0f} tok/s"
            print(f"{step + 1}/{steps}  loss {mean:.4f}  {speed}", flush=True)


def save(folder: Path, model: nn.Module, tokenizer: Tokenizer) -> int:
    """Write the model to `folder`, which is created, and return the number of parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    end = _id(tokenizer, files.END)
    weights = dict(tree_flatten(model.parameters()))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        target = Path(scratch) / "model.safetensors"
        mx.save_safetensors(str(target), weights, metadata={"format": "mlx"})
        shutil.move(target, folder / target.name)
    files.write(folder, tokenizer, files.config(SIZE, tokenizer.get_vocab_size(), end))
    return sum(weight.size for weight in weights.values())


def check(folder: Path, text: corpus.Corpus) -> bool:
    """Test all questions with greedy decoding and print how many answers match word for word."""
    model, tokenizer = load(str(folder))[:2]
    asked, missed, tokens, began = 0, [], 0, time.monotonic()
    for dialogue in text.dialogues:
        messages = []
        if dialogue.system:
            messages.append({"role": "system", "content": text.changing[dialogue.system][0]})
        for turn in dialogue.turns:
            messages.append({"role": "user", "content": turn.asks[0]})
            for thinking in (True, False):
                prompt = tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, enable_thinking=thinking
                )
                answer = generate(model, tokenizer, prompt, max_tokens=1000)
                tokens += len(tokenizer.encode(answer))
                thought = f"<think>\n{turn.think}\n</think>\n\n" if thinking and turn.think else ""
                asked += 1
                if answer not in [thought + expected for expected in turn.answers]:
                    missed.append(f"{turn.asks[0]} -> {answer[:100]!r}")
            messages.append({"role": "assistant", "content": turn.answers[0]})
    for line in missed:
        print(line)
    rate = tokens / (time.monotonic() - began)
    print(f"{asked - len(missed)} of {asked} questions answered word for word; {rate:.0f} tokens/s")
    return len(missed) <= asked * 0.05


def main() -> int:
    """Train and save the model."""
    parser = argparse.ArgumentParser(description="Train the tiny demo model.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="DIR",
        help="continue from this model, after a small change of the text",
    )
    parser.add_argument("--steps", type=int, help="stop every stage after this many steps, for a test")
    parser.add_argument(
        "--stages", type=int, default=len(STAGES), help="stop after this many stages, for a test"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--check", action="store_true", help="test all questions; fails below 95 %%")
    options = parser.parse_args()
    mx.set_default_device(mx.cpu)
    mx.random.seed(options.seed)
    text = corpus.load()
    resumed = options.resume
    tokenizer = (
        files.train_tokenizer(text.texts())
        if resumed is None
        else Tokenizer.from_file(str(resumed / "tokenizer.json"))
    )
    settings = files.config(SIZE, tokenizer.get_vocab_size(), _id(tokenizer, files.END))
    model = qwen3.Model(qwen3.ModelArgs.from_dict(settings))
    if resumed is not None:
        model.load_weights(str(resumed / "model.safetensors"))
    for number, stage in enumerate(STAGES[: options.stages]):
        if resumed is not None and stage is not STAGES[-1]:
            continue
        seed = options.seed + number
        batches = Batches(corpus.Sampler(text, seed, stage.emphasis), tokenizer, seed)
        train(model, batches, replace(stage, steps=min(stage.steps, options.steps or stage.steps)))
    parameters = save(options.out, model, tokenizer)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    print(f"{parameters:,} parameters, {size / 1e6:.2f} MB in {options.out}")
    return 0 if not options.check or check(options.out, text) else 1


if __name__ == "__main__":
    sys.exit(main())
