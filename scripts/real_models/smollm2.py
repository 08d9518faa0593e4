"""SmolLM2-135M-Instruct: Llama's architecture, a byte-level BPE tokenizer, a ChatML template."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from real_models.gguf_file import GgufFile, array, named

_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3
"""GGUF's token type of special tokens."""


def config(file: GgufFile) -> dict[str, Any]:
    """Return config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "bos_token_id": file.setting("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.setting("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.setting("tokenizer.ggml.padding_token_id"),
        "hidden_act": "silu",
        "hidden_size": file.setting("llama.embedding_length"),
        "intermediate_size": file.setting("llama.feed_forward_length"),
        "max_position_embeddings": file.setting("llama.context_length"),
        "num_attention_heads": file.setting("llama.attention.head_count"),
        "num_hidden_layers": file.setting("llama.block_count"),
        "num_key_value_heads": file.setting("llama.attention.head_count_kv"),
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": file.setting("llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": file.setting("llama.vocab_size"),
    }


def weights(file: GgufFile) -> dict[str, mx.array]:
    """Return the weights by their Hugging Face names, in full precision."""
    heads = {
        "attn_q": file.setting("llama.attention.head_count"),
        "attn_k": file.setting("llama.attention.head_count_kv"),
    }
    found = {}
    for name, tensor in file.tensors():
        stem = name.split(".")[-2]
        values = _unpermuted(tensor, heads[stem]) if stem in heads else tensor
        found[named(name, _NAMES)] = array(values)
    return found


def _unpermuted(
    values: np.ndarray[Any, np.dtype[np.float32]], heads: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Undo llama.cpp's permutation of rotary dimensions (`LlamaModel.permute` in its converter)."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer(file: GgufFile) -> Tokenizer:
    """Return the tokenizer: byte-level BPE with single digits, and the merges of the file."""
    tokens = file.setting("tokenizer.ggml.tokens")
    kinds = file.setting("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in file.setting("tokenizer.ggml.merges")]
    result = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    result.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _CONTROL
        ]
    )
    return result


def tokenizer_config(file: GgufFile) -> dict[str, Any]:
    """Return tokenizer_config.json."""
    tokens = file.setting("tokenizer.ggml.tokens")
    return {
        "add_prefix_space": False,
        "bos_token": tokens[file.setting("tokenizer.ggml.bos_token_id")],
        "chat_template": file.setting("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[file.setting("tokenizer.ggml.eos_token_id")],
        "model_max_length": file.setting("llama.context_length"),
        "pad_token": tokens[file.setting("tokenizer.ggml.padding_token_id")],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[file.setting("tokenizer.ggml.unknown_token_id")],
    }


def first_layers(
    config: dict[str, Any], weights: dict[str, mx.array], count: int
) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """Return config and weights of the model's first layers: a fast but weak draft model."""
    prefixes = {f"model.layers.{layer}." for layer in range(count)}
    return {**config, "num_hidden_layers": count}, {
        name: value
        for name, value in weights.items()
        if not name.startswith("model.layers.") or any(name.startswith(prefix) for prefix in prefixes)
    }
