"""Creates small models with random weights that mlx-lm can load, for tests that need no sensible answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
)
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}{% endif %}"
)
_TEXT = (
    "The quick brown fox jumps over the lazy dog. Hello, world! How are you today? 0123456789 "
    "A model reads tokens and writes tokens; every answer ends. naïve café 🙂 日本語\n"
)


def make_model(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    context: int = 512,
    seed: int = 0,
    template: str | None = TEMPLATE,
    generation_config: dict[str, Any] | None = None,
    sliding_window: int | None = None,
    endless: bool = False,
    bare: bool = False,
) -> Path:
    """Write a llama-style model with random weights and a byte-level tokenizer to `folder`.

    An endless model never ends its turn with greedy decoding: its end-of-turn tokens have a logit of zero. A
    bare model is a Qwen3 without an output layer, with the weight names of embedding models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab = _tokenizer(folder, template)
    heads, kv_heads, inner = 4, 2, hidden * 2
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 32,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "vocab_size": vocab,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }
    if sliding_window is not None:
        kinds = [*["sliding_attention"] * (layers - 1), "full_attention"]
        config |= {"sliding_window": sliding_window, "layer_types": kinds}
    if bare:
        config |= {"architectures": ["Qwen3Model"], "model_type": "qwen3", "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    if generation_config is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation_config))
    _weights(folder, hidden, inner, layers, heads * 32, kv_heads * 32, vocab, seed, endless, bare)
    return folder


def _tokenizer(folder: Path, template: str | None) -> int:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT] * 3, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "tool_parser_type": "json_tools",
    }
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(tokenizer.get_vocab_size())


def _weights(
    folder: Path,
    hidden: int,
    inner: int,
    layers: int,
    q_size: int,
    kv_size: int,
    vocab: int,
    seed: int,
    endless: bool,
    bare: bool,
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Any:
        return (random.standard_normal((rows, columns)) * 0.15).astype(np.float32)

    ones = np.ones(hidden, dtype=np.float32)
    embeddings = matrix(vocab, hidden)
    if endless:
        embeddings[[0, 2]] = 0
    tensors: dict[str, Any] = {"model.embed_tokens.weight": embeddings, "model.norm.weight": ones}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": ones,
            f"{at}.post_attention_layernorm.weight": ones,
            f"{at}.self_attn.q_proj.weight": matrix(q_size, hidden),
            f"{at}.self_attn.k_proj.weight": matrix(kv_size, hidden),
            f"{at}.self_attn.v_proj.weight": matrix(kv_size, hidden),
            f"{at}.self_attn.o_proj.weight": matrix(hidden, q_size),
            f"{at}.mlp.gate_proj.weight": matrix(inner, hidden),
            f"{at}.mlp.up_proj.weight": matrix(inner, hidden),
            f"{at}.mlp.down_proj.weight": matrix(hidden, inner),
        }
        if bare:
            norm = np.ones(32, dtype=np.float32)
            tensors |= {f"{at}.self_attn.q_norm.weight": norm, f"{at}.self_attn.k_norm.weight": norm}
    if bare:
        tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(tensors, str(folder / "model.safetensors"))
