"""Every architecture of mlx_lm gives the same answers in our engine, also with other requests beside it.

The embeddings of texts in a batch are those of each text alone.

`make families` tests all of them; with `LONG=` only a selection with different kinds of cache, and those that
cannot be batched.
"""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import random
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Delta, GenerationRequest
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.contract.terms import BatchingReason
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, Result, executable, needs_mlx, new_engine, run, worker_environment
from tests.families.table import LEFT_OUT, OWN, PARTS, VOCABULARY, config_of

pytestmark = [needs_mlx, pytest.mark.families, pytest.mark.asyncio(loop_scope="module")]

CHOICE = (
    *("llama", "qwen3_moe"),  # keys and values
    *("gemma3_text", "gpt_oss"),  # rotating
    *("mamba2", "plamo2"),  # recurrent
    *("qwen3_next", "jamba"),  # hybrid
    *("deepseek_v3", "deepseek_v32"),  # latent attention
    "llama4",  # chunked
    *("afm7", "gpt_bigcode", "phi3small", "gemma2"),  # not to be batched
)
"""What `.ci/run` takes."""
IN_TURN = {
    "afm7": BatchingReason.DIFFERENT,  # layers that reuse keys treat padding as positions
    "bailing_moe_linear": BatchingReason.DIFFERENT,  # like the next one: padding changes the state
    "deepseek_v41": BatchingReason.CACHE,
    "gemma2": BatchingReason.FAILED,  # the mask lacks a dimension if heads share keys
    "gpt_bigcode": BatchingReason.FAILED,  # one position for all rows
    "jamba": BatchingReason.DIFFERENT,
    "llama4": BatchingReason.CACHE,
    "longcat_flash_ngram": BatchingReason.DIFFERENT,
    "mamba": BatchingReason.DIFFERENT,
    "nemotron_h": BatchingReason.DIFFERENT,
    "olmo_hybrid": BatchingReason.DIFFERENT,
    "phi3small": BatchingReason.FAILED,
    "plamo3": BatchingReason.DIFFERENT,
    "rwkv7": BatchingReason.DIFFERENT,
}
"""What mlx-lm 0.32.2 cannot batch, by the trial at its first load."""
NOT_HERE = {
    "bitnet": "No Metal back-end",
    "gear": "`layer_types` entries must be",  # transformers rejects its config
    "muse_spark": "has no attribute 'apply_chat_template'",
    "olmo": "SystemExit",  # mlx-lm's module exits the process if hf_olmo is not installed
}
"""What does not run everywhere, and how mlx_lm says so."""
UNEQUAL = {
    "phi3small": {"second turn", "branch"},  # it adds its mask as a number
    "plamo3": {"second turn", "branch", "vectors"},  # its mask is one token wider than its caches
}
"""Modes in which mlx-lm 0.32.2 itself answers according to how a prompt is cut into pieces."""
NO_VECTORS = {
    **dict.fromkeys(
        (
            "dbrx",
            "exaone",
            "gpt_bigcode",
            "lille-130m",
            "mamba",
            "mamba2",
            "nanochat",
            "nemotron_h",
            "openelm",
        ),
        "hidden states",
    ),
    **dict.fromkeys(("phixtral", "qwen"), "hidden states"),
    "gemma3n": "different vectors",  # its layers share keys only through caches
    "phi3small": "different vectors",  # it adds its mask as a number, and sees the padding
}
"""What makes no embeddings, and why, in the words of the refusal."""
TOKENS = 24
_TIE = 1e-3
"""How little likelier than the second a token may be that comes out otherwise: kernels round differently."""
_APART = 1e-4
"""How far a number of a text's vector may be from that of the text alone."""
_LENGTHS = {"a": 9, "b": 21, "c": 5, "d": 13, "e": 33, "f": 20, "g": 11, "h": 27, "i": 12, "j": 18}
"""Tokens of the prompts; most are longer than the windows."""


def names() -> list[str]:
    return sorted(OWN) if os.environ.get("MLXK2_LONG_TESTS") else list(CHOICE)


def prompts() -> dict[str, Any]:
    randomly = random.Random(11)

    def tokens(count: int) -> list[int]:
        return [randomly.randrange(7, VOCABULARY) for _ in range(count)]

    made: dict[str, Any] = {name: tokens(count) for name, count in _LENGTHS.items()}
    made["second turn"] = {"after": "a", "more": tokens(6)}
    made["branch"] = made["f"][:12] + tokens(9)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    engine = new_engine()
    yield engine
    await engine.stop()


class Peer:
    """A new model and mlx_lm's answers with it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.model = RunnableModel(f"families/{name}", folder)
        job = {"config": config_of(name), "prompts": prompts(), "max_tokens": TOKENS}
        done = subprocess.run(
            [executable(), "-m", "tests.support.with_blas", "tests.families.making", str(folder)],
            input=json.dumps(job),
            env=worker_environment(),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        self.failure = done.stderr[-3000:] or f"status {done.returncode}" if done.returncode else ""
        said: dict[str, Any] = json.loads(done.stdout) if not done.returncode else {}
        self.answers: dict[str, Any] = said.get("answers", {})
        self.caches = " ".join(said.get("caches", ()))

    @property
    def different(self) -> int:
        """Number of different tokens in the answer with the fewest."""
        return min(len(set(answer["tokens"])) for answer in self.answers.values())

    def request(self, prompt: str, **more: Any) -> GenerationRequest:
        tokens = tuple(self.answers[prompt]["prompt"])
        return GenerationRequest(
            tokens=tokens, sampling=GREEDY, max_tokens=TOKENS, return_token_ids=True, **more
        )

    def differs(self, prompt: str, result: Result) -> str:
        """Return the difference to mlx_lm's answer; empty if there is none except for ties."""
        answer = self.answers[prompt]
        expected = answer["tokens"]
        for at, (token, own) in enumerate(zip(expected, result.token_ids, strict=False)):
            if token != own:
                return "" if answer["ahead"][at] < _TIE else f"{prompt}: token {at} is {own}, not {token}"
        if len(expected) != len(result.token_ids):
            return f"{prompt}: {len(result.token_ids)} tokens, not {len(expected)}"
        logprobs = [each.logprob for each in result.logprobs]
        far = [at for at, own in enumerate(logprobs) if abs(own - answer["logprobs"][at]) > 1e-3]
        return f"{prompt}: another log-probability of token {far[0]}" if far else ""


@pytest.mark.parametrize("name", names())
async def test_architecture_gives_the_answers_of_mlx_lm(
    name: str, engine: Engine, tmp_path: Path, add_row: Callable[..., None]
) -> None:
    peer = Peer(name, tmp_path / name)
    if peer.failure:
        await _is_refused(name, peer, engine, add_row)
        return
    loaded = await engine.load(peer.model)
    wrong = [
        text
        for prompt, result in (await _said(engine, peer)).items()
        if (text := peer.differs(prompt, result))
    ]
    vectors, reason = await _vectors(engine, peer)
    if vectors > _APART:
        wrong.append(f"vectors: {vectors:.0e} from those of the texts alone")
    several = (
        "together"
        if loaded.batched
        else f"in turn: {loaded.unbatched_reason.value if loaded.unbatched_reason else '?'}"
    )
    add_row(name, peer.caches, several, f"{peer.different} of {TOKENS}", "; ".join(wrong) or "in every mode")
    assert {text.partition(":")[0] for text in wrong} <= UNEQUAL.get(name, set()), wrong
    assert loaded.unbatched_reason is IN_TURN.get(name)
    assert NO_VECTORS.get(name, "") in reason, reason
    assert bool(reason) is (name in NO_VECTORS), reason
    assert engine.status.last_error is None


async def _vectors(engine: Engine, peer: Peer) -> tuple[float, str]:
    """Return the distance of embeddings in a batch to those of single texts, or why there are none."""
    model = replace(peer.model, embedding=True)
    texts = ["fox " * count for count in (1, 2, 30, 5, 12, 2, 60)]
    try:
        together = (await engine.embed(model, texts)).vectors
    except OpError as error:
        return 0.0, error.message
    alone = [(await engine.embed(model, [text])).vectors[0] for text in texts]
    return float(np.abs(np.array(together) - np.array(alone)).max()), ""


async def _is_refused(name: str, peer: Peer, engine: Engine, add_row: Callable[..., None]) -> None:
    """Check that a model that mlx_lm cannot run is rejected with a reason, and the worker keeps running."""
    reason = NOT_HERE.get(name)
    assert reason is not None, peer.failure
    assert reason in peer.failure or reason == "SystemExit", peer.failure
    if not (peer.model.folder / "model.safetensors").exists():
        from safetensors.numpy import save_file

        save_file({"none": np.zeros(1, np.float32)}, peer.model.folder / "model.safetensors")
    pid = engine.status.pid
    with pytest.raises(OpError) as raised:
        await engine.load(peer.model)
    add_row(name, "-", "-", "-", f"not here: {raised.value.message[:100]}")
    assert raised.value.type is ErrorType.MODEL_NOT_RUNNABLE
    assert pid is None or engine.status.pid == pid


async def _said(engine: Engine, peer: Peer) -> dict[str, Result]:
    """Return the engine's answers in every mode."""
    model = peer.model
    said: dict[str, Result] = {}
    for prompt in ("a", "b"):
        said[prompt] = await run(engine, model, peer.request(prompt, logprobs=0))
    together = ("c", "d", "e", "f")
    results = await asyncio.gather(
        *(run(engine, model, peer.request(prompt, logprobs=0)) for prompt in together)
    )
    said |= dict(zip(together, results, strict=True))

    first = asyncio.create_task(run_until(engine, peer, "g", 4, begun := asyncio.Event()))
    await begun.wait()
    said["h"] = await run(engine, model, peer.request("h", logprobs=0))
    said["g"] = await first

    neighbor = asyncio.create_task(cut_off(engine, peer, "j", 3))
    said["i"] = await run(engine, model, peer.request("i", logprobs=0))
    await neighbor

    for prompt in ("second turn", "branch"):
        said[prompt] = await run(engine, model, peer.request(prompt, logprobs=0))
    return said


async def run_until(engine: Engine, peer: Peer, prompt: str, tokens: int, begun: asyncio.Event) -> Result:
    """Generate to the end, and signal when some tokens have been generated."""
    result = Result()
    try:
        async for event in engine.generate(peer.model, peer.request(prompt)):
            result.events.append(event)
            if isinstance(event, Delta):
                result.token_ids += event.token_ids
            if len(result.token_ids) >= tokens:
                begun.set()
    finally:
        begun.set()
    return result


async def cut_off(engine: Engine, peer: Peer, prompt: str, tokens: int) -> None:
    """Generate a few tokens and cancel."""
    stream = engine.generate(peer.model, peer.request(prompt))
    count = 0
    async for event in stream:
        count += event.tokens if isinstance(event, Delta) else 0
        if count >= tokens:
            break
    await stream.aclose()


async def test_every_architecture_is_in_the_table() -> None:
    import mlx_lm.models

    modules = {module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)}
    assert modules - PARTS == set(OWN) | set(LEFT_OUT)
