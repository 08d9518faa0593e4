"""Writes the files beside the weights: tokenizer, config and model card in Hugging Face layout."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent
VOCABULARY = 1280
"""Number of tokens: 256 bytes, special tokens and merges."""
CONTEXT = 4096
"""Declared context length in tokens; the training uses up to half of it."""
END, PAD = "<|im_end|>", "<|endoftext|>"
_SPECIAL = (PAD, "<|im_start|>", END)
_MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""Single tokens that are part of the text: a decoder that skips special tokens keeps them."""


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Train a byte-level BPE tokenizer on the texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _SPECIAL])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_MARKERS),
        special_tokens=list(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Added after the training: otherwise their ids would collide with those of merges.
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in _MARKERS])
    return tokenizer


def config(size: dict[str, int], vocabulary: int, end: int) -> dict[str, Any]:
    """Return config.json: Qwen3's architecture, very small."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **size,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "eos_token_id": end,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }


def write(folder: Path, tokenizer: Tokenizer, model_config: dict[str, Any]) -> None:
    """Write all files except the weights into `folder`."""
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    documents = {
        "config.json": model_config,
        # Low temperature: learned answers come out as learned, and if several answers are equally
        # likely, they alternate.
        "generation_config.json": {
            "do_sample": True,
            "eos_token_id": [end, pad],
            "pad_token_id": pad,
            "temperature": 0.3,
            "top_p": 0.9,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "model_max_length": CONTEXT,
            "pad_token": PAD,
        },
        "special_tokens_map.json": {"eos_token": END, "pad_token": PAD},
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, source in (("chat_template.jinja", "chat_template.jinja"), ("README.md", "card.md")):
        (folder / name).write_bytes((HERE / source).read_bytes())
