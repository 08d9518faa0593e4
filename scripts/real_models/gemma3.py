"""Gemma 3 270M, the base model: five of six layers use a sliding window of 512 tokens."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from real_models.gguf_file import GgufFile, array, named

_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
"""GGUF's token types."""
_SPACE = "\u2581"
"""SentencePiece's symbol for a space."""


def config(file: GgufFile) -> dict[str, Any]:
    """Return config.json; values that GGUF lacks (local rotary base, pattern) are Gemma 3's defaults."""
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "attention_bias": False,
        "bos_token_id": file.setting("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.setting("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.setting("tokenizer.ggml.padding_token_id"),
        "head_dim": file.setting("gemma3.attention.key_length"),
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": file.setting("gemma3.embedding_length"),
        "intermediate_size": file.setting("gemma3.feed_forward_length"),
        "max_position_embeddings": file.setting("gemma3.context_length"),
        "num_attention_heads": file.setting("gemma3.attention.head_count"),
        "num_hidden_layers": file.setting("gemma3.block_count"),
        "num_key_value_heads": file.setting("gemma3.attention.head_count_kv"),
        "query_pre_attn_scalar": file.setting("gemma3.attention.key_length"),
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "rope_theta": file.setting("gemma3.rope.freq_base"),
        "sliding_window": file.setting("gemma3.attention.sliding_window"),
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": len(file.setting("tokenizer.ggml.tokens")),
    }


def weights(file: GgufFile) -> dict[str, mx.array]:
    """Return the weights by their Hugging Face names, in full precision; GGUF adds 1 to norms."""
    found = {}
    for name, tensor in file.tensors():
        found[named(name, _NAMES)] = array(tensor - 1 if name.endswith("norm.weight") else tensor)
    return found


def tokenizer(file: GgufFile) -> Tokenizer:
    """Return the tokenizer: BPE with byte fallback, merges ranked by the scores of the pieces."""
    tokens = file.setting("tokenizer.ggml.tokens")
    kinds = file.setting("tokenizer.ggml.token_type")
    scores = file.setting("tokenizer.ggml.scores")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    result = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(vocabulary, kinds, scores),
            unk_token=tokens[file.setting("tokenizer.ggml.unknown_token_id")],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    result.normalizer = normalizers.Replace(" ", _SPACE)
    result.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    result.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    bos = file.setting("tokenizer.ggml.bos_token_id")
    result.post_processor = processors.TemplateProcessing(
        single=f"{tokens[bos]} $A", special_tokens=[(tokens[bos], bos)]
    )
    pairs = list(zip(tokens, kinds, strict=True))
    result.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in pairs if kind == _CONTROL]
    )
    result.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token, kind in pairs if kind == _USER_DEFINED]
    )
    return result


def _merges(vocabulary: dict[str, int], kinds: list[int], scores: list[float]) -> list[tuple[str, str]]:
    """Return pairs of pieces, ordered by the score of the merged piece, like SentencePiece."""
    ranked = sorted(
        (i for i, kind in enumerate(kinds) if kind == _NORMAL), key=lambda i: scores[i], reverse=True
    )
    pieces = list(vocabulary)
    merges = []
    for i in ranked:
        piece = pieces[i]
        pairs = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    return merges


def tokenizer_config(file: GgufFile) -> dict[str, Any]:
    """Return tokenizer_config.json."""
    tokens = file.setting("tokenizer.ggml.tokens")
    return {
        "bos_token": tokens[file.setting("tokenizer.ggml.bos_token_id")],
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[file.setting("tokenizer.ggml.eos_token_id")],
        "model_max_length": file.setting("gemma3.context_length"),
        "pad_token": tokens[file.setting("tokenizer.ggml.padding_token_id")],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[file.setting("tokenizer.ggml.unknown_token_id")],
    }
