"""The files of the sample's repos: language models, and models of other types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxk_tui.demo import texts
from mlxk_tui.demo.architectures import (
    Config,
    bert_tensors,
    decoder_config,
    decoder_tensors,
    gguf_tensors,
    vision_tensors,
    whisper_tensors,
)
from mlxk_tui.demo.layout import Content
from mlxk_tui.demo.weights import SHARD_BYTES, Tensor, gguf, index, quantize, safetensors, shards

Files = dict[str, Content]
"""Content of all files of a revision, by path with forward slashes."""

_FAMILIES: dict[str, tuple[str | None, str, str]] = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", texts.HEADERS),
    "qwen": (None, "<|im_end|>", texts.CHATML),
    "mistral": ("<s>", "</s>", texts.INST),
}
"""BOS token, EOS token and chat template by tokenizer family."""


def text_model(
    name: str,
    config: Config,
    summary: str,
    *,
    base: str,
    family: str = "qwen",
    chat: bool = True,
    license_id: str = "apache-2.0",
    shard_bytes: int = SHARD_BYTES,
    tags: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    extra: Files | None = None,
    more_tensors: Sequence[Tensor] = (),
    **card: Any,
) -> Files:
    """Return the files of a language model converted to MLX; `card` is passed to `texts.card`."""
    bits = (config.get("quantization") or {}).get("bits")
    group = (config.get("quantization") or {}).get("group_size", 64)
    prefix = "language_model.model." if "vision_config" in config else "model."
    stored = quantize([*more_tensors, *decoder_tensors(config, prefix)], bits, group)
    weights = shards(stored, shard_bytes)
    bos, eos, template = _FAMILIES[family]
    context = config["max_position_embeddings"]
    return {
        "README.md": texts.card(
            name, summary, base=base, license_id=license_id, tags=tags, notes=notes, **card
        ),
        "config.json": texts.to_json(config),
        "generation_config.json": texts.generation_config(),
        **weights,
        "model.safetensors.index.json": index(weights),
        "tokenizer.json": texts.tokenizer(name, (*((bos,) if bos else ()), eos)),
        "tokenizer_config.json": texts.tokenizer_config(
            bos, eos, context, template=template if chat else None
        ),
        **(extra or {}),
    }


def qwen25_05b_torch(name: str) -> Files:
    """Return the original Qwen2.5 0.5B Instruct: safetensors for PyTorch."""
    config = decoder_config(
        "qwen2", "Qwen2ForCausalLM", hidden=896, layers=24, heads=14, kv_heads=2, inner=4864,
        vocab=151936, context=32768, theta=1000000.0, bits=None,
    )  # fmt: skip
    files = text_model(
        name, config, "The original weights in bfloat16.", base="Qwen/Qwen2.5-0.5B", library="transformers",
    )  # fmt: skip
    del files["model.safetensors.index.json"]
    tensors = quantize(decoder_tensors(config), None)
    return {**files, "model.safetensors": safetensors(tensors, "pt")}


def qwen3_embedding(name: str) -> Files:
    """Return Qwen3 Embedding 0.6B with 4 bits."""
    config = decoder_config(
        "qwen3", "Qwen3ForCausalLM", hidden=1024, layers=28, heads=16, kv_heads=8, inner=3072,
        vocab=151669, context=32768, head_dim=128, theta=1000000.0,
    )  # fmt: skip
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    pooling = {"word_embedding_dimension": 1024, "pooling_mode_lasttoken": True, "include_prompt": True}
    return text_model(
        name, config, "Turns text into vectors of 1,024 numbers for search and clustering.",
        base="Qwen/Qwen3-Embedding-0.6B", chat=False, pipeline="feature-extraction",
        extra={
            "modules.json": texts.to_json(modules),
            "1_Pooling/config.json": texts.to_json(pooling),
            "config_sentence_transformers.json": texts.to_json({"similarity_fn_name": "cosine"}),
        },
    )  # fmt: skip


def qwen25_vl(name: str) -> Files:
    """Return Qwen2.5-VL 3B Instruct with 4 bits, a vision model."""
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "model_type": "qwen2_5_vl",
        "num_heads": 16, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "window_size": 112,
    }  # fmt: skip
    config = decoder_config(
        "qwen2_5_vl", "Qwen2_5_VLForConditionalGeneration", hidden=2048, layers=36, heads=16, kv_heads=2,
        inner=11008, vocab=151936, context=128000, theta=1000000.0,
        extra={"vision_config": vision, "image_token_id": 151655, "video_token_id": 151656},
    )  # fmt: skip
    preprocessor = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
    return text_model(
        name, config, "Reads screenshots, charts and photos and answers questions about them.",
        base="Qwen/Qwen2.5-VL-3B-Instruct", pipeline="image-text-to-text", tags=("multimodal",),
        usage=f"mlx_vlm.generate --model {name} --image photo.jpg",
        more_tensors=list(vision_tensors({"vision_config": vision})),
        extra={"preprocessor_config.json": texts.to_json(preprocessor)},
    )  # fmt: skip


def whisper_turbo(name: str) -> Files:
    """Return Whisper large v3 turbo, a speech model, with the file names of mlx-whisper."""
    config = {
        "model_type": "whisper", "n_audio_ctx": 1500, "n_audio_head": 20, "n_audio_layer": 32,
        "n_audio_state": 1280, "n_mels": 128, "n_text_ctx": 448, "n_text_head": 20, "n_text_layer": 4,
        "n_text_state": 1280, "n_vocab": 51866,
    }  # fmt: skip
    summary = "Transcribes speech in a hundred languages. For mlx-whisper, not for mlx-lm."
    return {
        "README.md": texts.card(
            name, summary, base="openai/whisper-large-v3-turbo", license_id="mit",
            pipeline="automatic-speech-recognition", usage="mlx_whisper speech.mp3",
        ),
        "config.json": texts.to_json(config),
        "weights.safetensors": safetensors(list(whisper_tensors(config))),
    }  # fmt: skip


def llama_gguf(name: str) -> Files:
    """Return Llama 3.2 1B Instruct as GGUF, for llama.cpp."""
    config = {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64,
        "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256,
    }  # fmt: skip
    strings = {
        "general.architecture": "llama",
        "general.name": "Llama 3.2 1B Instruct",
        "tokenizer.ggml.model": "gpt2",
    }
    numbers = {
        "general.file_type": 7,
        "llama.block_count": 16,
        "llama.context_length": 131072,
        "llama.embedding_length": 2048,
        "llama.attention.head_count": 32,
        "llama.attention.head_count_kv": 8,
    }
    summary = "Quantized for llama.cpp and everything built on it."
    return {
        "README.md": texts.card(
            name, summary, base="meta-llama/Llama-3.2-1B-Instruct", license_id="llama3.2", library="gguf",
        ),
        "Llama-3.2-1B-Instruct-Q8_0.gguf": gguf(list(gguf_tensors(config)), strings, numbers),
    }  # fmt: skip


def minilm(name: str) -> Files:
    """Return all-MiniLM-L6-v2, a sentence-transformers model for PyTorch."""
    config: Config = {
        "architectures": ["BertModel"], "hidden_act": "gelu", "hidden_size": 384, "intermediate_size": 1536,
        "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
        "num_hidden_layers": 6, "type_vocab_size": 2, "vocab_size": 30522,
    }  # fmt: skip
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    return {
        "README.md": texts.card(
            name, "Maps sentences to vectors of 384 numbers.", library="sentence-transformers",
            pipeline="sentence-similarity",
        ),
        "config.json": texts.to_json(config),
        "config_sentence_transformers.json": texts.to_json({"similarity_fn_name": "cosine"}),
        "model.safetensors": safetensors(list(bert_tensors(config)), "pt"),
        "modules.json": texts.to_json(modules),
        "tokenizer.json": texts.tokenizer(name, ("[CLS]", "[SEP]")),
        "tokenizer_config.json": texts.tokenizer_config(None, "[SEP]", 512, kind="BertTokenizer"),
    }  # fmt: skip
