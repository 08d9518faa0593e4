"""Configs of the sample models, with the values of the real ones, and their tensors.

The tensors are derived from the config, so that sizes, parameter counts and memory estimates match the real
models. Names and shapes are those of mlx-lm or, for PyTorch models, transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlxk_tui.demo.weights import Tensor

Config = dict[str, Any]
"""The content of a config.json."""


def decoder_config(
    model_type: str,
    architecture: str,
    *,
    hidden: int,
    layers: int,
    heads: int,
    kv_heads: int,
    inner: int,
    vocab: int,
    context: int,
    head_dim: int | None = None,
    tied: bool = True,
    theta: float = 10000.0,
    eps: float = 1e-06,
    bits: int | None = 4,
    group: int = 64,
    extra: Config | None = None,
) -> Config:
    """Return the config of a decoder-only language model; it is unquantized if `bits` is None."""
    config: Config = {
        "architectures": [architecture],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": head_dim or hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": inner,
        "max_position_embeddings": context,
        "model_type": model_type,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": eps,
        "rope_scaling": None,
        "rope_theta": theta,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.53.2",
        "use_cache": True,
        "vocab_size": vocab,
    }
    if bits is not None:
        config["quantization"] = {"group_size": group, "bits": bits}
        config["quantization_config"] = {"group_size": group, "bits": bits}
    return dict(sorted({**config, **(extra or {})}.items()))


def decoder_tensors(config: Config, prefix: str = "model.") -> Iterator[Tensor]:
    """Yield the tensors of a Llama-like decoder: llama, mistral, qwen2, qwen3, olmo2, gemma2, mixtral."""
    hidden, kind = config["hidden_size"], config["model_type"]
    yield Tensor(f"{prefix}embed_tokens", (config["vocab_size"], hidden), True)
    for number in range(config["num_hidden_layers"]):
        layer = f"{prefix}layers.{number}."
        if kind == "deepseek_v3":
            yield from _latent_attention(config, layer)
        else:
            yield from _attention(config, layer)
        if config.get("num_experts") or config.get("num_local_experts") or config.get("n_routed_experts"):
            yield from _experts(config, layer, number)
        elif kind == "phi3":
            yield Tensor(f"{layer}mlp.gate_up_proj", (2 * config["intermediate_size"], hidden), True)
            yield Tensor(f"{layer}mlp.down_proj", (hidden, config["intermediate_size"]), True)
        else:
            yield from _mlp(f"{layer}mlp.", hidden, config["intermediate_size"])
        norms = ["input_layernorm", "post_attention_layernorm"]
        if kind == "gemma2":
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for norm in norms:
            yield Tensor(f"{layer}{norm}.weight", (hidden,))
    yield Tensor(f"{prefix}norm.weight", (hidden,))
    if not config.get("tie_word_embeddings", False):
        yield Tensor(f"{prefix.removesuffix('model.')}lm_head", (config["vocab_size"], hidden), True)


def _attention(config: Config, layer: str) -> Iterator[Tensor]:
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    attention = f"{layer}self_attn."
    if config["model_type"] == "phi3":
        yield Tensor(f"{attention}qkv_proj", (queries + 2 * keys, hidden), True)
        yield Tensor(f"{attention}o_proj", (hidden, queries), True)
        return
    for name, rows in (("q", queries), ("k", keys), ("v", keys)):
        yield Tensor(f"{attention}{name}_proj", (rows, hidden), True)
        if config["model_type"] in {"qwen2", "qwen2_5_vl"}:
            yield Tensor(f"{attention}{name}_proj.bias", (rows,))
    yield Tensor(f"{attention}o_proj", (hidden, queries), True)
    if config["model_type"] in {"qwen3", "qwen3_moe"}:
        yield Tensor(f"{attention}q_norm.weight", (head,))
        yield Tensor(f"{attention}k_norm.weight", (head,))
    elif config["model_type"] == "olmo2":
        yield Tensor(f"{attention}q_norm.weight", (queries,))
        yield Tensor(f"{attention}k_norm.weight", (keys,))


def _latent_attention(config: Config, layer: str) -> Iterator[Tensor]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    rank, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
    attention = f"{layer}self_attn."
    yield Tensor(f"{attention}q_proj", (heads * (nope + rope), hidden), True)
    yield Tensor(f"{attention}kv_a_proj_with_mqa", (rank + rope, hidden), True)
    yield Tensor(f"{attention}kv_a_layernorm.weight", (rank,))
    yield Tensor(f"{attention}kv_b_proj", (heads * (nope + value), rank), True)
    yield Tensor(f"{attention}o_proj", (hidden, heads * value), True)


def _mlp(prefix: str, hidden: int, inner: int, experts: tuple[int, ...] = ()) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}gate_proj", (*experts, inner, hidden), True)
    yield Tensor(f"{prefix}up_proj", (*experts, inner, hidden), True)
    yield Tensor(f"{prefix}down_proj", (*experts, hidden, inner), True)


def _experts(config: Config, layer: str, number: int) -> Iterator[Tensor]:
    hidden = config["hidden_size"]
    if config["model_type"] == "mixtral":
        block, count, inner = (
            f"{layer}block_sparse_moe.",
            config["num_local_experts"],
            config["intermediate_size"],
        )
    else:
        block, inner = f"{layer}mlp.", config["moe_intermediate_size"]
        count = config.get("num_experts") or config["n_routed_experts"]
    if number < config.get("first_k_dense_replace", 0):
        yield from _mlp(block, hidden, config["intermediate_size"])
        return
    yield Tensor(f"{block}gate", (count, hidden), True)
    yield from _mlp(f"{block}switch_mlp.", hidden, inner, (count,))
    if shared := config.get("n_shared_experts"):
        yield from _mlp(f"{block}shared_experts.", hidden, shared * inner)


def vision_tensors(config: Config) -> Iterator[Tensor]:
    """Yield the tensors of a Qwen2.5-VL vision tower; mlx-vlm doesn't quantize it."""
    vision = config["vision_config"]
    hidden, inner = vision["hidden_size"], vision["intermediate_size"]
    yield Tensor("vision_tower.patch_embed.proj.weight", (hidden, 2, 14, 14, 3))
    for number in range(vision["depth"]):
        block = f"vision_tower.blocks.{number}."
        for name, shape in (
            ("attn.qkv", (3 * hidden, hidden)),
            ("attn.proj", (hidden, hidden)),
            ("mlp.gate_proj", (inner, hidden)),
            ("mlp.up_proj", (inner, hidden)),
            ("mlp.down_proj", (hidden, inner)),
        ):
            yield Tensor(f"{block}{name}.weight", shape)
            yield Tensor(f"{block}{name}.bias", shape[:1])
        yield Tensor(f"{block}norm1.weight", (hidden,))
        yield Tensor(f"{block}norm2.weight", (hidden,))
    merged = hidden * vision["spatial_merge_size"] ** 2
    yield Tensor("vision_tower.merger.ln_q.weight", (hidden,))
    for name, rows in (("mlp.0", merged), ("mlp.2", vision["out_hidden_size"])):
        yield Tensor(f"vision_tower.merger.{name}.weight", (rows, merged))
        yield Tensor(f"vision_tower.merger.{name}.bias", (rows,))


def whisper_tensors(config: Config) -> Iterator[Tensor]:
    """Yield the tensors of a Whisper model in mlx-whisper's half-precision format."""
    audio, text = config["n_audio_state"], config["n_text_state"]
    yield Tensor("encoder.conv1.weight", (audio, 3, config["n_mels"]), dtype="F16")
    yield Tensor("encoder.conv2.weight", (audio, 3, audio), dtype="F16")
    for number in range(config["n_audio_layer"]):
        yield from _whisper_block(f"encoder.blocks.{number}.", audio, ("attn",))
    yield Tensor("encoder.ln_post.weight", (audio,), dtype="F16")
    yield Tensor("decoder.token_embedding.weight", (config["n_vocab"], text), dtype="F16")
    yield Tensor("decoder.positional_embedding", (config["n_text_ctx"], text), dtype="F16")
    for number in range(config["n_text_layer"]):
        yield from _whisper_block(f"decoder.blocks.{number}.", text, ("attn", "cross_attn"))
    yield Tensor("decoder.ln.weight", (text,), dtype="F16")


def _whisper_block(block: str, width: int, attentions: tuple[str, ...]) -> Iterator[Tensor]:
    for attention in attentions:
        for part in ("query", "key", "value", "out"):
            yield Tensor(f"{block}{attention}.{part}.weight", (width, width), dtype="F16")
            if part != "key":
                yield Tensor(f"{block}{attention}.{part}.bias", (width,), dtype="F16")
        yield Tensor(f"{block}{attention}_ln.weight", (width,), dtype="F16")
    for name, shape in (("mlp1", (4 * width, width)), ("mlp2", (width, 4 * width))):
        yield Tensor(f"{block}{name}.weight", shape, dtype="F16")
        yield Tensor(f"{block}{name}.bias", shape[:1], dtype="F16")
    yield Tensor(f"{block}mlp_ln.weight", (width,), dtype="F16")


def bert_tensors(config: Config) -> Iterator[Tensor]:
    """Yield the tensors of a BERT encoder with the names of transformers."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    for name, rows in (
        ("word", config["vocab_size"]),
        ("position", config["max_position_embeddings"]),
        ("token_type", 2),
    ):
        yield Tensor(f"embeddings.{name}_embeddings.weight", (rows, hidden), dtype="F32")
    yield from _with_bias("embeddings.LayerNorm", (hidden,))
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            yield from _with_bias(f"{layer}attention.{part}", (hidden, hidden))
        yield from _with_bias(f"{layer}attention.output.LayerNorm", (hidden,))
        yield from _with_bias(f"{layer}intermediate.dense", (inner, hidden))
        yield from _with_bias(f"{layer}output.dense", (hidden, inner))
        yield from _with_bias(f"{layer}output.LayerNorm", (hidden,))
    yield from _with_bias("pooler.dense", (hidden, hidden))


def _with_bias(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", shape, dtype="F32")
    yield Tensor(f"{name}.bias", shape[:1], dtype="F32")


def gguf_tensors(config: Config) -> Iterator[Tensor]:
    """Yield the tensors of a Llama model with the names of llama.cpp."""
    hidden, head = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    inner = config["intermediate_size"]
    yield Tensor("token_embd", (config["vocab_size"], hidden), True)
    for number in range(config["num_hidden_layers"]):
        block = f"blk.{number}."
        yield Tensor(f"{block}attn_norm.weight", (hidden,))
        for name, shape in (
            ("attn_q", (queries, hidden)),
            ("attn_k", (keys, hidden)),
            ("attn_v", (keys, hidden)),
            ("attn_output", (hidden, queries)),
            ("ffn_gate", (inner, hidden)),
            ("ffn_up", (inner, hidden)),
            ("ffn_down", (hidden, inner)),
        ):
            yield Tensor(f"{block}{name}", shape, True)
        yield Tensor(f"{block}ffn_norm.weight", (hidden,))
    yield Tensor("output_norm.weight", (hidden,))
