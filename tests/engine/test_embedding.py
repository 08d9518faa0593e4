"""Embeddings: a decoder's hidden states, pooled and normalized, also beside other requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.embedding import split_texts
from mlxk_tui.engine.generation import Delta, GenerationRequest
from mlxk_tui.engine.memory import WeightsPolicy
from mlxk_tui.engine.models import RunnableModel, find_runnable
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.conftest import GREEDY, needs_mlx, new_engine, run, until
from tests.engine.small_models import make_model

pytestmark = [needs_mlx, pytest.mark.asyncio(loop_scope="package")]

TOLERANCE = 2e-6
"""How far a number of a vector of length one may be from the same one in another batch: rounding."""
TEXTS = (
    "Hello",
    "The quick brown fox jumps over the lazy dog.",
    "日本語 🙂",
    "How are you today? " * 60,
    "Hello",
)


def pooling(folder: Path, **config: Any) -> Path:
    """Write the files of sentence-transformers for a model."""
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> RunnableModel:
    folder = make_model(tmp_path_factory.mktemp("embedder") / "m", context=4096, bare=True)
    return RunnableModel("test/Tiny-Embedding", folder, embedding=True)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def states(embedder: RunnableModel) -> list[Any]:
    """Return the hidden states of each text, computed with numpy."""
    return [_hidden_states(embedder.folder, text) for text in TEXTS]


def _hidden_states(folder: Path, text: str) -> Any:
    """Return the hidden states of a Qwen3 with these weights for a text, (tokens, size), in float64."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    weights = {
        name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()
    }
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    count = len(ids)

    def normed(values: Any) -> Any:  # all scales of these models are one
        return values / np.sqrt((values**2).mean(axis=-1, keepdims=True) + 1e-5)

    def turned(values: Any) -> Any:
        """Rotate (tokens, heads, 32) by position."""
        angles = np.arange(count)[:, None, None] * 10000.0 ** (-np.arange(16) / 16)
        left, right = values[..., :16], values[..., 16:]
        return np.concatenate(
            [left * np.cos(angles) - right * np.sin(angles), right * np.cos(angles) + left * np.sin(angles)],
            -1,
        )

    state = weights["embed_tokens.weight"][ids]
    future = np.triu(np.full((count, count), -np.inf), 1)
    for layer in range(2):
        at = f"layers.{layer}"
        read = normed(state)
        query, key, value = (
            (read @ weights[f"{at}.self_attn.{name}_proj.weight"].T).reshape(count, -1, 32) for name in "qkv"
        )
        query, key = turned(normed(query)), turned(normed(key))
        mixed = []
        for head in range(4):
            scores = query[:, head] @ key[:, head // 2].T / np.sqrt(32) + future
            odds = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed.append(odds / odds.sum(axis=-1, keepdims=True) @ value[:, head // 2])
        state = state + np.concatenate(mixed, -1) @ weights[f"{at}.self_attn.o_proj.weight"].T
        read = normed(state)
        gate = read @ weights[f"{at}.mlp.gate_proj.weight"].T
        inner = gate / (1 + np.exp(-gate)) * (read @ weights[f"{at}.mlp.up_proj.weight"].T)
        state = state + inner @ weights[f"{at}.mlp.down_proj.weight"].T
    return normed(state)


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


async def test_last_hidden_state_is_the_embedding(
    engine: Engine, embedder: RunnableModel, states: list[Any]
) -> None:
    result = await engine.embed(embedder, TEXTS)
    assert result.tokens == sum(map(len, states))
    for vector, state in zip(result.vectors, states, strict=True):
        np.testing.assert_allclose(vector, unit(state[-1]), atol=2e-4)
    assert result.vectors[0] == pytest.approx(result.vectors[4], abs=1e-5)
    alone = await engine.embed(embedder, TEXTS[1:2])
    np.testing.assert_allclose(alone.vectors[0], result.vectors[1], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "pool"),
    [
        (
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
            lambda state: state.mean(axis=0),
        ),
        ({"pooling_mode": "mean"}, lambda state: state.mean(axis=0)),
        ({"pooling_mode_cls_token": True}, lambda state: state[0]),
        ({"pooling_mode_lasttoken": True}, lambda state: state[-1]),
    ],
    ids=["mean", "mean by name", "cls", "lasttoken"],
)
async def test_pooling_follows_the_models_files(
    engine: Engine, tmp_path: Path, states: list[Any], config: dict[str, Any], pool: Any
) -> None:
    folder = pooling(make_model(tmp_path / "m", context=4096, bare=True), **config)
    result = await engine.embed(RunnableModel("test/pooled", folder, embedding=True), TEXTS)
    for vector, state in zip(result.vectors, states, strict=True):
        np.testing.assert_allclose(vector, unit(pool(state)), atol=2e-4)


def in_halves(folder: Path) -> None:
    """Convert a model's weights to half precision."""
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value.astype(np.float16) for name, value in weights.items()}, folder / "model.safetensors"
    )


def in_four_bits(folder: Path) -> None:
    """Quantize a model's matrices."""
    import mlx.core as mx

    path = str(folder / "model.safetensors")
    loaded: Any = mx.load(path)
    quantize: Any = mx.quantize  # mlx declares no types for it
    weights: dict[str, mx.array] = {}
    for name, value in loaded.items():
        if value.ndim == 2:
            stem = name.removesuffix(".weight")
            weights[name], weights[f"{stem}.scales"], weights[f"{stem}.biases"] = quantize(value, 32, 4)
        else:
            weights[name] = value
    mx.save_safetensors(path, weights, {"format": "mlx"})
    config = json.loads((folder / "config.json").read_text())
    quantization = {"group_size": 32, "bits": 4}
    (folder / "config.json").write_text(json.dumps({**config, "quantization": quantization}))


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def storing() -> AsyncIterator[Engine]:
    """Return an engine that holds weights as stored, and expands them for many rows."""
    engine = new_engine(weights=WeightsPolicy(CpuWeights.STORED))
    yield engine
    await engine.stop()


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["lasttoken", "mean", "cls"])
@pytest.mark.parametrize("change", [None, in_halves, in_four_bits], ids=["float32", "float16", "4 bits"])
async def test_embedding_in_a_batch_equals_the_single_one(
    storing: Engine, tmp_path: Path, pool: str, change: Callable[[Path], None] | None
) -> None:
    folder = pooling(make_model(tmp_path / "m", context=4096, bare=True), pooling_mode=pool)
    if change is not None:
        change(folder)
    model = RunnableModel("test/batched", folder, embedding=True)
    texts = ["A", *(f"{count} " + "fox naïve 🙂" * count for count in (1, 2, 3, 5, 9, 17, 40, 90, 250))]
    alone = [(await storing.embed(model, [text])).vectors[0] for text in texts]
    assert len({tuple(vector) for vector in alone}) == len(texts) or pool == "cls"
    for order in (range(len(texts)), range(len(texts) - 1, -1, -1), (*range(5), *range(9), *range(5))):
        together = (await storing.embed(model, [texts[at] for at in order])).vectors
        np.testing.assert_allclose(together, [alone[at] for at in order], rtol=0, atol=TOLERANCE)


@pytest.mark.slow
async def test_embedding_many_texts_does_not_stop_a_stream(engine: Engine, embedder: RunnableModel) -> None:
    request = GenerationRequest(
        prompt="Hello, world! How are", sampling=GREEDY, max_tokens=250, stop=("never said",)
    )
    alone = await run(engine, embedder, request)
    stream = engine.generate(embedder, request)
    text, flowed = "", 0
    work: asyncio.Task[Any] | None = None
    async for event in stream:
        if isinstance(event, Delta):
            text += event.text
            flowed += work is not None and not work.done()
            if work is None:
                work = asyncio.create_task(engine.embed(embedder, [f"{n} {TEXTS[3]}" for n in range(8)]))
    assert work is not None
    vectors = (await work).vectors
    assert len(vectors) == 8
    assert text == alone.text
    assert flowed > 3


async def test_embedding_can_be_cancelled_and_the_engine_keeps_working(
    engine: Engine, embedder: RunnableModel
) -> None:
    task = asyncio.create_task(engine.embed(embedder, [f"{n} {TEXTS[3]}" for n in range(2000)]))
    running = asyncio.create_task(engine.embed(embedder, TEXTS))
    await running
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await engine.unload()  # waits for everything that uses the model
    await until(engine, lambda status: status.model is None)
    assert len((await engine.embed(embedder, ["Hello"])).vectors) == 1


async def test_invalid_embedding_requests_are_rejected(
    engine: Engine, embedder: RunnableModel, babbler: RunnableModel, tmp_path: Path
) -> None:
    async def refused(model: RunnableModel, texts: Any) -> OpError:
        with pytest.raises(OpError) as caught:
            await engine.embed(model, texts)
        return caught.value

    chatting = await refused(babbler, ["Hello"])
    assert chatting.type is ErrorType.VALIDATION_ERROR
    assert "test/babbler is not an embedding model" in chatting.message
    for texts in ([], [""], "Hello", ["Hello", 7]):
        assert (await refused(embedder, texts)).type is ErrorType.VALIDATION_ERROR
    long = await refused(embedder, ["words " * 20_000])
    assert long.type is ErrorType.CONTEXT_LENGTH_EXCEEDED
    folder = pooling(make_model(tmp_path / "max", bare=True), pooling_mode_max_tokens=True)
    assert "pooling" in (await refused(RunnableModel("m", folder, embedding=True), ["Hello"])).message
    folder = make_model(tmp_path / "dense", bare=True)
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense", "path": "../x"}]')
    assert "Dense" in (await refused(RunnableModel("m", folder, embedding=True), ["Hello"])).message
    folder = make_model(tmp_path / "both", bare=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "use_bidirectional_attention": True}))
    error = await refused(RunnableModel("m", folder, embedding=True), ["Hello"])
    assert error.type is ErrorType.MODEL_NOT_RUNNABLE
    assert "bidirectional attention" in error.message
    assert len((await engine.embed(embedder, ["Hello"])).vectors) == 1


async def test_embedding_model_is_detected_and_bert_is_not_runnable(hub: Path, cache: Cache) -> None:
    for name, config in (("Qwen3-Embedding-tiny", {}), ("bge-tiny", {"model_type": "bert"})):
        snapshot = hub / f"models--mlx-community--{name}" / "snapshots" / ("a" * 40)
        make_model(snapshot, bare=True)
        (snapshot.parent.parent / "refs").mkdir()
        (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
        written = json.loads((snapshot / "config.json").read_text())
        (snapshot / "config.json").write_text(json.dumps({**written, **config}))
    assert (await find_runnable(cache, "Qwen3-Embedding-tiny")).embedding
    with pytest.raises(OpError) as caught:
        await find_runnable(cache, "bge-tiny")
    assert caught.value.type is ErrorType.MODEL_NOT_RUNNABLE
    assert "bert" in caught.value.message


async def test_embedding_chunks_are_limited() -> None:
    texts = ["x" * 100_000] * 5 + ["y"] * 150
    parts = list(split_texts(texts))
    assert [text for part in parts for text in part] == texts
    assert max(map(len, parts)) == 64
    assert max(sum(map(len, part)) for part in parts) <= 256 * 1024
    assert list(split_texts(["z" * 10**6])) == [("z" * 10**6,)]


async def test_code_in_a_repo_is_never_executed(
    engine: Engine, embedder: RunnableModel, tmp_path: Path
) -> None:
    folder = make_model(tmp_path / "m")
    marker = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_file": "own.py"}))
    with pytest.raises(OpError) as caught:
        await engine.load(replace(embedder, name="test/own", folder=folder))
    assert caught.value.type is ErrorType.MODEL_NOT_RUNNABLE
    assert not marker.exists()
