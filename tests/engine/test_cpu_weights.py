"""Weights on a CPU: float32 copies and expanded layers give the results of mlx-lm, in any precision."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from mlxk_tui.engine.connection.wire import from_json, to_json
from mlxk_tui.engine.memory import WeightsPolicy, check_memory_for
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.protocol import Load
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from tests.engine.small_models import _tokenizer
from tests.families.table import VOCABULARY, config_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is not installed on this platform"
)

PLENTY = 1 << 40


def make(
    kind: str,
    *,
    tied: bool = False,
    dtype: str = "float32",
    layers: int = 2,
    width: int = 128,
    **quantized: Any,
) -> Any:
    """Return a small random model of mlx-lm with some biases."""
    import mlx.core as mx
    from mlx import nn
    from mlx_lm.models import mixtral, qwen2

    mx.random.seed(3)
    shape = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": 192,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": 320,
        "rope_theta": 10000.0,
    }
    if kind == "experts":
        arguments = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
        module: Any = mixtral
    else:
        arguments = {"model_type": "qwen2", "tie_word_embeddings": tied}
        module = qwen2
    model = module.Model(module.ModelArgs.from_dict({**shape, **arguments}))
    if quantized:
        nn.quantize(model, **quantized)  # type: ignore[attr-defined]  # mlx's stubs lack it
    model.set_dtype(getattr(mx, dtype))
    mx.eval(model.parameters())
    return model


def write_model(folder: Path, architecture: str) -> Any:
    """Write a quantized model with a tokenizer to a folder, and return it."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    model = make("plain", bits=4, group_size=32)
    config = {**vars(model.args), "model_type": architecture, "eos_token_id": 0}
    config["quantization"] = {"bits": 4, "group_size": 32}
    _tokenizer(folder, None)
    (folder / "config.json").write_text(json.dumps(config))
    flat: Any = tree_flatten(model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), dict(flat), {"format": "mlx"})
    return model


def logits(model: Any, tokens: int = 24) -> Any:
    """Return a model's logits for a prompt and one more token, (tokens + 1, vocabulary)."""
    import mlx.core as mx
    import numpy as np
    from mlx_lm.models.cache import make_prompt_cache

    cache = make_prompt_cache(model)
    prompt = model(mx.array([[(7 * at) % 320 for at in range(tokens)]]), cache=cache)
    one = model(mx.array([[9]]), cache=cache)
    return np.array(mx.concatenate([prompt[0], one[0]]).astype(mx.float32))


def hold(model: Any, wanted: CpuWeights, free: int = PLENTY, *, fast: bool = True) -> Any:
    """Convert a model's weights."""
    from mlxk_tui.engine.inference.weights.conversion import convert_weights

    return convert_weights(model, wanted, free, lambda done, total: None, fast=fast)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("plain", {"bits": 4, "group_size": 64}),
        ("plain", {"bits": 4, "group_size": 64, "tied": True}),
        ("plain", {"bits": 8, "group_size": 32}),
        ("plain", {"bits": 3, "group_size": 32}),
        ("plain", {"bits": 4, "group_size": 32, "mode": "mxfp4"}),
        ("experts", {"bits": 4, "group_size": 64}),
    ],
)
@pytest.mark.parametrize("wanted", [CpuWeights.FLOAT32, CpuWeights.STORED])
def test_quantized_weights_give_the_same_results(
    kind: str, options: dict[str, Any], wanted: CpuWeights
) -> None:
    import numpy as np

    before = logits(make(kind, **options))
    model = make(kind, **options)
    held = hold(model, wanted)
    np.testing.assert_allclose(logits(model), before, atol=2e-4, rtol=2e-4)
    assert held.kind is wanted
    if wanted is CpuWeights.FLOAT32:
        assert held.current_bytes > 3 * held.stored_bytes
        assert not any("Quantized" in type(module).__name__ for module in model.modules())
    else:
        assert held.current_bytes == held.stored_bytes
        assert 2 <= held.min_dequantize_rows <= 16


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("wanted", [CpuWeights.FLOAT32, CpuWeights.STORED])
def test_half_precision_is_computed_in_float32(dtype: str, tied: bool, wanted: CpuWeights) -> None:
    import mlx.core as mx
    import numpy as np

    exact = make("plain", tied=tied, dtype=dtype)
    exact.set_dtype(mx.float32)
    model = make("plain", tied=tied, dtype=dtype)
    held = hold(model, wanted)
    np.testing.assert_allclose(logits(model), logits(exact), atol=2e-4, rtol=2e-4)
    assert model(mx.array([[1]])).dtype == mx.float32
    assert (held.current_bytes < 1.1 * held.stored_bytes) is (wanted is CpuWeights.STORED)


def mixture(architecture: str, how: dict[str, Any] | None) -> Any:
    """Return a tiny MoE model with random weights, quantized or in half precision."""
    import importlib

    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_map

    mx.random.seed(5)
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    model: Any = module.Model(module.ModelArgs.from_dict(config_of(architecture)))
    model.update(tree_map(lambda weight: weight * 4 if weight.ndim > 1 else weight, model.parameters()))
    if how is None:
        model.set_dtype(mx.bfloat16)
    else:
        nn.quantize(  # type: ignore[attr-defined]  # mlx's stubs lack it
            model,
            class_predicate=lambda _, part: hasattr(part, "to_quantized") and part.weight.shape[-1] % 32 == 0,
            **how,
        )
    mx.eval(model.parameters())
    return model


def greedy(model: Any, tokens: int = 16) -> list[int]:
    """Return mlx-lm's answer to a prompt with dozens of rows for each of four experts."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    prompt = mx.array([(7 * at) % VOCABULARY for at in range(96)])
    return [int(token) for token, _ in generate_step(prompt, model, max_tokens=tokens)]


FOUR_BITS: dict[str, Any] = {"bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("architecture", "how"),
    [
        ("qwen3_moe", FOUR_BITS),
        pytest.param("mixtral", None, marks=pytest.mark.slow),
        pytest.param("deepseek_v3", FOUR_BITS, marks=pytest.mark.slow),
        pytest.param("deepseek_v3", None, marks=pytest.mark.slow),
        ("gpt_oss", {**FOUR_BITS, "mode": "mxfp4"}),
    ],
)
def test_moe_models_give_the_same_answers(architecture: str, how: dict[str, Any] | None) -> None:
    import mlx.core as mx

    from mlxk_tui.engine.inference.weights.experts import (
        BlockwiseQuantizedSwitchLinear,
        GroupedSwitchLinear,
        HalfSwitchLinear,
    )

    exact = mixture(architecture, how)
    if how is None:
        exact.set_dtype(mx.float32)
    expected = greedy(exact)
    assert len(set(expected)) > 4
    stored = HalfSwitchLinear if how is None else BlockwiseQuantizedSwitchLinear
    for wanted, kind in ((CpuWeights.FLOAT32, GroupedSwitchLinear), (CpuWeights.STORED, stored)):
        model = mixture(architecture, how)
        hold(model, wanted)
        assert any(type(module) is kind for module in model.modules())
        assert greedy(model) == expected


@pytest.mark.parametrize("how", [{"bits": 4, "group_size": 64}, {"dtype": "bfloat16"}, {}])
def test_expert_rows_are_returned_in_order(how: dict[str, Any]) -> None:
    import mlx.core as mx
    import numpy as np
    from mlx_lm.models.switch_layers import SwitchLinear

    def layer() -> Any:
        mx.random.seed(2)
        made: Any = SwitchLinear(64, 96, 5)
        made.bias = mx.random.normal((5, 96))
        made.set_dtype(getattr(mx, how.get("dtype", "float32")))
        return made.to_quantized(how["group_size"], how["bits"]) if "bits" in how else made

    exact = layer()
    if "bits" not in how:
        exact.set_dtype(mx.float32)
    chosen = mx.array([[0] * 8, [0, 4, 2, 2, 2, 2, 1, 0], [2, 3, 2, 2, 2, 2, 2, 1]])  # 10, 2, 10, 1 and 1
    sorted_ = mx.sort(chosen.flatten())
    for x, indices in (
        (mx.random.normal((3, 1, 1, 64)), chosen),  # one row for all experts of a token
        (mx.random.normal((3, 8, 1, 64)), chosen),
        (mx.random.normal((24, 2, 64)), sorted_),
        (mx.random.normal((1, 1, 64)), chosen[:1, :1]),
    ):
        for wanted in (CpuWeights.FLOAT32, CpuWeights.STORED):
            held = layer()
            hold(held, wanted)
            np.testing.assert_allclose(held(x, indices), exact(x, indices), atol=1e-4, rtol=1e-4)


def test_at_most_one_expert_is_in_memory_as_float32() -> None:
    import mlx.core as mx
    from mlx_lm.models.switch_layers import SwitchLinear

    made: Any = SwitchLinear(1024, 512, 32, bias=False)
    layer = made.to_quantized(64, 4)
    hold(layer, CpuWeights.STORED)
    x, indices = mx.random.normal((320, 1, 1024)), mx.array([at // 10 for at in range(320)])
    mx.eval(layer.parameters(), x, indices)
    del made
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(layer(x, indices))
    assert mx.get_peak_memory() - before < 32 * 512 * 1024 * 4 / 4


def test_half_precision_scales_become_float32() -> None:
    import numpy as np

    exact = make("plain", bits=4, group_size=64, dtype="bfloat16")
    hold(exact, CpuWeights.FLOAT32)
    model = make("plain", bits=4, group_size=64, dtype="bfloat16")
    held = hold(model, CpuWeights.STORED)
    np.testing.assert_allclose(logits(model), logits(exact), atol=2e-4, rtol=2e-4)
    assert held.current_bytes < 1.2 * held.stored_bytes


@pytest.mark.parametrize(
    "options", [{"bits": 4, "group_size": 64}, pytest.param({"dtype": "bfloat16"}, marks=pytest.mark.slow)]
)
def test_at_most_one_layer_is_in_memory_as_float32(options: dict[str, Any]) -> None:
    import mlx.core as mx

    model = make("plain", layers=24, width=256, **options)
    whole = hold(model, CpuWeights.STORED).current_bytes * (7 if "bits" in options else 2)
    prompt = mx.array([list(range(64))])
    mx.eval(model(prompt))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(model(prompt))
    assert mx.get_peak_memory() - before < whole / 4


def test_auto_uses_float32_if_it_fits_and_a_fast_library_exists() -> None:
    quantized: dict[str, Any] = {"bits": 4, "group_size": 64}
    assert hold(make("plain", **quantized), CpuWeights.AUTO).kind is CpuWeights.FLOAT32
    assert hold(make("plain", **quantized), CpuWeights.AUTO, free=1000).kind is CpuWeights.STORED
    slow = hold(make("plain", **quantized), CpuWeights.AUTO, fast=False)
    assert (slow.kind, slow.min_dequantize_rows) == (CpuWeights.STORED, 0)


def test_shared_weights_and_module_references_keep_working() -> None:
    import mlx.core as mx

    model = make("plain", dtype="bfloat16")
    model.lm_head.weight = model.model.embed_tokens.weight
    model.layers[1].mlp = model.layers[0].mlp
    bound = model.model.embed_tokens.as_linear
    hold(model, CpuWeights.FLOAT32)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.layers[1].mlp is model.layers[0].mlp
    assert bound(mx.ones((1, 128))).dtype == mx.float32


def test_customized_layers_are_not_replaced() -> None:
    from mlx.nn.layers.quantized import QuantizedLinear

    class Own(QuantizedLinear):
        """Uses its scales directly."""

        def __call__(self, x: Any) -> Any:
            assert self.scales is not None
            return super().__call__(x)  # type: ignore[no-untyped-call]  # mlx's own

    model = make("plain", bits=4, group_size=64)
    model.layers[0].mlp.up_proj.__class__ = Own
    for wanted in (CpuWeights.FLOAT32, CpuWeights.STORED):
        hold(model, wanted)
        assert type(model.layers[0].mlp.up_proj) is Own
        logits(model)


def test_loading_can_be_cancelled_while_weights_are_copied() -> None:
    from mlxk_tui.engine.inference.weights.conversion import convert_weights

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        convert_weights(make("plain", bits=4, group_size=64), CpuWeights.FLOAT32, PLENTY, stop, fast=True)


@pytest.mark.parametrize(("kind", "bits"), [("plain", 4), ("experts", 8)])
def test_float32_memory_is_known_in_advance(kind: str, bits: int) -> None:
    from mlxk_tui.engine.inference.weights.conversion import float32_bytes

    model = make(kind, bits=bits, group_size=64)
    expected = float32_bytes(model)
    assert hold(model, CpuWeights.FLOAT32).current_bytes == expected


def test_setting_of_a_model_reaches_the_worker() -> None:
    choice = WeightsPolicy(CpuWeights.STORED, {"Org/Model": CpuWeights.FLOAT32})
    assert choice.for_model("org/model") is CpuWeights.FLOAT32
    assert choice.for_model("org/other") is CpuWeights.STORED
    command = Load(1, "n", "/f", 5, None, CpuWeights.FLOAT32)
    assert from_json(to_json(command)) == command


def test_float32_that_does_not_fit_is_rejected_if_requested(
    tmp_path: Path,
) -> None:
    from mlxk_tui.ops.health.machine import may_have_gpu

    if may_have_gpu():
        pytest.skip("it is for machines without a GPU")
    model = RunnableModel("test/large", tmp_path, memory_bytes=1000, float32_bytes=1 << 50)
    check_memory_for(model)
    with pytest.raises(OpError) as raised:
        check_memory_for(model, 0, CpuWeights.FLOAT32)
    assert raised.value.type is ErrorType.INSUFFICIENT_MEMORY


@pytest.mark.parametrize(
    ("needs", "fault", "expands"),
    [
        ("layer.scales", "AttributeError: ", True),
        ("{QuantizedLinear: 1}[type(layer)]", "KeyError: ", False),
    ],
)
def test_model_that_fails_with_other_weights_keeps_its_own(
    needs: str, fault: str, expands: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    from mlx.nn.layers.quantized import QuantizedLinear
    from mlx_lm.models import qwen2

    from mlxk_tui.engine.inference.weights.conversion import conversions
    from mlxk_tui.engine.inference.weights.loading import load
    from mlxk_tui.ops.contract.matrices import Blas, BlasState

    class Model(qwen2.Model):
        """Uses an attribute of a layer that a float32 copy lacks."""

        def __call__(self, *arguments: Any, **more: Any) -> Any:
            eval(needs, {"layer": self.layers[0].mlp.up_proj, "QuantizedLinear": QuantizedLinear})
            return super().__call__(*arguments, **more)

    architecture = types.ModuleType("mlx_lm.models.picky")
    architecture.__dict__.update(Model=Model, ModelArgs=qwen2.ModelArgs)
    monkeypatch.setitem(sys.modules, architecture.__name__, architecture)
    made = write_model(tmp_path, "picky")
    ways = conversions(Blas(BlasState.FAST), CpuWeights.FLOAT32, 0)
    loaded = load("test/picky", tmp_path, None, lambda stage, done, total: None, ways)
    assert loaded.weight_format is not None
    assert loaded.weight_format.kind is CpuWeights.STORED
    assert loaded.weight_format.error.startswith(fault)
    assert (loaded.weight_format.min_dequantize_rows > 0) is expands
    np.testing.assert_allclose(logits(loaded.model), logits(made), atol=2e-4, rtol=2e-4)
