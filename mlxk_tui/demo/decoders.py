"""The language models of the sample, with their published configs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mlxk_tui.demo.architectures import Config, decoder_config
from mlxk_tui.demo.models import Files, text_model

_LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


@dataclass(frozen=True)
class DecoderConfig:
    """A language model that is defined by its config."""

    base: str
    """The repo of the original model."""
    family: str
    """The family of its tokenizer and chat template."""
    summary: str
    config: Config
    license_id: str = "apache-2.0"
    chat: bool = True
    notes: tuple[str, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)
    """More arguments of `texts.card`."""

    def files(self, name: str) -> Files:
        """Return the files of the repo `name` on the hub."""
        return text_model(
            name, self.config, self.summary, base=self.base, family=self.family, chat=self.chat,
            license_id=self.license_id, notes=self.notes, **self.card,
        )  # fmt: skip


# The table is more readable with several arguments per line.
# fmt: off
LLAMA_3B = DecoderConfig(
    "meta-llama/Llama-3.2-3B-Instruct",
    "llama3",
    "A small multilingual assistant that fits beside everything else on an 8 GB machine.",
    decoder_config(
        "llama", "LlamaForCausalLM", hidden=3072, layers=28, heads=24, kv_heads=8, inner=8192,
        vocab=128256, context=131072, theta=500000.0, eps=1e-05,
        extra={"rope_scaling": {**_LLAMA3_ROPE, "factor": 32.0}},
    ),
    license_id="llama3.2",
    card={"tags": ("facebook", "meta", "llama-3")},
    notes=("Context of 131,072 tokens.", "4 bits in groups of 64, about 4.5 bits a weight."),
)
LLAMA_8B_BASE = DecoderConfig(
    "meta-llama/Llama-3.1-8B",
    "llama3",
    "The base model: it continues text and has no chat template. Good for fine-tuning.",
    decoder_config(
        "llama", "LlamaForCausalLM", hidden=4096, layers=32, heads=32, kv_heads=8, inner=14336,
        vocab=128256, context=131072, tied=False, theta=500000.0, eps=1e-05,
        extra={"rope_scaling": _LLAMA3_ROPE},
    ),
    license_id="llama3.1",
    chat=False,
)
QWEN3_4B = DecoderConfig(
    "Qwen/Qwen3-4B-Instruct-2507",
    "qwen",
    "A fast general assistant with a very long context; it answers without reasoning.",
    decoder_config(
        "qwen3", "Qwen3ForCausalLM", hidden=2560, layers=36, heads=32, kv_heads=8, inner=9728,
        vocab=151936, context=262144, head_dim=128, theta=5000000.0,
    ),
)
QWEN3_235B = DecoderConfig(
    "Qwen/Qwen3-235B-A22B-Instruct-2507",
    "qwen",
    "A very large mixture of experts: 128 per layer, 8 active per token.",
    decoder_config(
        "qwen3_moe", "Qwen3MoeForCausalLM", hidden=4096, layers=94, heads=64, kv_heads=4, inner=12288,
        vocab=151936, context=262144, head_dim=128, tied=False, theta=5000000.0,
        extra={
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 1536,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
        },
    ),
)
QWEN3_CODER = DecoderConfig(
    "Qwen/Qwen3-Coder-30B-A3B-Instruct",
    "qwen",
    "Writes and edits code and calls tools; 3.3 of 30.5 billion weights are active per token.",
    decoder_config(
        "qwen3_moe", "Qwen3MoeForCausalLM", hidden=2048, layers=48, heads=32, kv_heads=4, inner=6144,
        vocab=151936, context=262144, head_dim=128, tied=False, theta=10000000.0,
        extra={
            "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
            "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
        },
    ),
)
MIXTRAL = DecoderConfig(
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "mistral",
    "Eight experts per layer, two active: the model that made mixtures of experts popular.",
    decoder_config(
        "mixtral", "MixtralForCausalLM", hidden=4096, layers=32, heads=32, kv_heads=8, inner=14336,
        vocab=32000, context=32768, tied=False, theta=1000000.0, eps=1e-05,
        extra={"num_local_experts": 8, "num_experts_per_tok": 2},
    ),
)
MOONLIGHT = DecoderConfig(
    "moonshotai/Moonlight-16B-A3B-Instruct",
    "qwen",
    "A mixture of experts with latent attention; its tokenizer comes as Python code in the repo.",
    decoder_config(
        "deepseek_v3", "DeepseekV3ForCausalLM", hidden=2048, layers=27, heads=16, kv_heads=16, inner=11264,
        vocab=163840, context=8192, tied=False, theta=50000.0, eps=1e-05,
        extra={
            "auto_map": {
                "AutoConfig": "configuration_deepseek.DeepseekV3Config",
                "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
            },
            "model_file": "modeling_deepseek.py", "first_k_dense_replace": 1, "kv_lora_rank": 512,
            "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2,
            "num_experts_per_tok": 6, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
    ),
    license_id="mit",
)
LLADA = DecoderConfig(
    "GSAI-ML/LLaDA-8B-Instruct",
    "llama3",
    "Generates text by diffusion instead of token by token; mlx-lm doesn't support it.",
    decoder_config(
        "llada", "LLaDAModelLM", hidden=4096, layers=32, heads=32, kv_heads=32, inner=12288, vocab=126464,
        context=4096, tied=False, theta=500000.0, eps=1e-05,
    ),
    license_id="mit",
)
PHI_35 = DecoderConfig(
    "microsoft/Phi-3.5-mini-instruct",
    "mistral",
    "A small model trained on textbook-like data.",
    decoder_config(
        "phi3", "Phi3ForCausalLM", hidden=3072, layers=32, heads=32, kv_heads=32, inner=8192, vocab=32064,
        context=131072, tied=False, eps=1e-05,
    ),
    license_id="mit",
)
GEMMA_2 = DecoderConfig(
    "google/gemma-2-9b-it",
    "mistral",
    "Balanced and good at languages, with a context of 8,192 tokens.",
    decoder_config(
        "gemma2", "Gemma2ForCausalLM", hidden=3584, layers=42, heads=16, kv_heads=8, inner=14336,
        vocab=256000, context=8192, head_dim=256,
        extra={
            "query_pre_attn_scalar": 256, "sliding_window": 4096, "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    license_id="gemma",
    card={"shard_bytes": 2 << 30},
)
NEMO = DecoderConfig(
    "mistralai/Mistral-Nemo-Instruct-2407",
    "mistral",
    "Twelve billion weights and a long context.",
    decoder_config(
        "mistral", "MistralForCausalLM", hidden=5120, layers=40, heads=32, kv_heads=8, inner=14336,
        vocab=131072, context=131072, head_dim=128, tied=False, theta=1000000.0, eps=1e-05,
    ),
    card={"shard_bytes": 8 << 30},
)
OLMO_2 = DecoderConfig(
    "allenai/OLMo-2-1124-7B-Instruct",
    "qwen",
    "Open in all its parts: data, code and every checkpoint.",
    decoder_config(
        "olmo2", "Olmo2ForCausalLM", hidden=4096, layers=32, heads=32, kv_heads=32, inner=11008,
        vocab=100352, context=4096, tied=False, theta=500000.0,
    ),
)
SMOLLM_3 = DecoderConfig(
    "HuggingFaceTB/SmolLM3-3B",
    "qwen",
    "Small, open and able to reason.",
    decoder_config(
        "smollm3", "SmolLM3ForCausalLM", hidden=2048, layers=36, heads=16, kv_heads=4, inner=11008,
        vocab=128256, context=65536, theta=5000000.0,
    ),
)
SMOLLM_2 = DecoderConfig(
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "qwen",
    "One of the smallest models that can hold a conversation.",
    decoder_config(
        "llama", "LlamaForCausalLM", hidden=576, layers=30, heads=9, kv_heads=3, inner=1536, vocab=49152,
        context=8192, theta=100000.0, eps=1e-05,
    ),
)
TINY_LLAMA = DecoderConfig(
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "mistral",
    "Fine-tuned on [bold red]markup[/bold red] and \x1b[31mescape codes\x1b[0m: text that must stay text.",
    decoder_config(
        "llama", "LlamaForCausalLM", hidden=2048, layers=22, heads=32, kv_heads=4, inner=5632, vocab=32000,
        context=2048, tied=False, eps=1e-05,
    ),
    notes=(
        "[link=file:///etc/passwd]not a link[/link]",
        "A bell \x07 and an arrow \u202etxet esrever\u202c.",
    ),
)
R1_DISTILL = DecoderConfig(
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "qwen",
    "Reasons at length before it answers.",
    decoder_config(
        "qwen2", "Qwen2ForCausalLM", hidden=1536, layers=28, heads=12, kv_heads=2, inner=8960,
        vocab=151936, context=131072, tied=False,
    ),
    license_id="mit",
)
# fmt: on


def qwen3_17b(*, group: int) -> DecoderConfig:
    """Return Qwen3 1.7B with 8 bits, quantized in groups of `group` weights."""
    config = decoder_config(
        "qwen3", "Qwen3ForCausalLM", hidden=2048, layers=28, heads=16, kv_heads=8, inner=6144,
        vocab=151936, context=40960, head_dim=128, theta=1000000.0, bits=8, group=group,
    )  # fmt: skip
    return DecoderConfig(
        "Qwen/Qwen3-1.7B", "qwen", f"Reasons if needed. 8 bits in groups of {group}.", config
    )


def qwen25_05b(note: str) -> DecoderConfig:
    """Return Qwen2.5 0.5B Instruct with 8 bits, and a note on its model card."""
    config = decoder_config(
        "qwen2", "Qwen2ForCausalLM", hidden=896, layers=24, heads=14, kv_heads=2, inner=4864,
        vocab=151936, context=32768, theta=1000000.0, bits=8,
    )  # fmt: skip
    summary = "Tiny and fast: for tests, drafts and speculative decoding."
    return DecoderConfig("Qwen/Qwen2.5-0.5B-Instruct", "qwen", summary, config, notes=(note,))
