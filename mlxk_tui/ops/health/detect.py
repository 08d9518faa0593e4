"""Detects a model's framework, type, capabilities, quantization and sizes from names and small files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlxk_tui.ops.cache.documents import Documents, Json, nonempty_str, positive_int, str_tuple
from mlxk_tui.ops.cache.names import DEFAULT_ORG
from mlxk_tui.ops.contract.results import Capability, Framework, Modality, ModelType, Quantization
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.health.report import ModelFacts
from mlxk_tui.ops.health.weights import Weights, is_weights

_CHAT_NAME = re.compile(r"instruct|chat|-it(?![a-z0-9])", re.IGNORECASE)
_EMBEDDING_NAME = re.compile(r"(?:^|[-_/.])(?:embed|bge(?:[-_.]|$)|e5-)|embedding", re.IGNORECASE)
_EMBEDDING_FILES = ("config_sentence_transformers.json", "sentence_bert_config.json", "modules.json")
_EMBEDDING_ARCHITECTURES = frozenset(
    {
        "BertModel",
        "DistilBertModel",
        "MPNetModel",
        "ModernBertModel",
        "NewModel",
        "NomicBertModel",
        "RobertaModel",
        "XLMRobertaModel",
    }
)
_VISION_KEYS = ("vision_config", "vision_tower", "mm_vision_tower", "image_token_id", "image_token_index")
_AUDIO_KEYS = ("audio_config", "audio_token_id", "audio_token_index")
_AUDIO_ONLY = frozenset({"whisper", "wav2vec2", "parakeet", "encodec", "snac", "hubert"})
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_positions",
    "n_ctx",
)


@dataclass(frozen=True)
class Detection:
    """The detected properties of a model."""

    framework: Framework
    model_type: ModelType
    capabilities: tuple[Capability, ...]
    modalities: tuple[Modality, ...]
    quantization: Quantization | None
    context_length: int | None
    facts: ModelFacts


def detect(name: str, documents: Documents, weights: Weights) -> Detection:
    """Detect the properties of the model `name`."""
    config = documents.config.value or {}
    text_config = _nested(config, "text_config")
    quantization = _quantization(config)
    framework = _framework(name, documents, quantization)
    model_type = _model_type(name, documents, config, framework)
    return Detection(
        framework=framework,
        model_type=model_type,
        capabilities=_CAPABILITIES[model_type],
        modalities=_modalities(config),
        quantization=quantization,
        context_length=positive_int(config, *_CONTEXT_KEYS) or positive_int(text_config, *_CONTEXT_KEYS),
        facts=_facts(documents, config, text_config, weights, quantization),
    )


def _nested(config: Json, key: str) -> Json:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _framework(name: str, documents: Documents, quantization: Quantization | None) -> Framework:
    card = documents.card
    if name.startswith(f"{DEFAULT_ORG}/"):
        return Framework.MLX
    if "mlx" in (tag.lower() for tag in str_tuple(card.get("tags"))):
        return Framework.MLX
    if (nonempty_str(card.get("library_name")) or "").lower() in {"mlx", "mlx-lm", "mlx_lm"}:
        return Framework.MLX
    has_safetensors = any(file.endswith(".safetensors") for file in documents.files)
    if quantization is not None and has_safetensors:
        return Framework.MLX
    if any(file.endswith(".gguf") for file in documents.files):
        return Framework.GGUF
    if any(is_weights(file) and not file.endswith(".npz") for file in documents.files):
        return Framework.PYTORCH
    return Framework.UNKNOWN


def _quantization(config: Json) -> Quantization | None:
    """Return the `quantization` block that MLX writes; other tools write `quantization_config`."""
    block = _nested(config, "quantization")
    bits = positive_int(block, "bits")
    return Quantization(bits=bits, group_size=positive_int(block, "group_size")) if bits else None


def _model_type(name: str, documents: Documents, config: Json, framework: Framework) -> ModelType:
    # Embedding first: several embedding models include the chat template of their base model.
    if _is_embedding(name, documents, config):
        return ModelType.EMBEDDING
    architecture = (nonempty_str(config.get("model_type")) or "").lower()
    if architecture in _AUDIO_ONLY:
        return ModelType.UNKNOWN
    if documents.has_chat_template or _CHAT_NAME.search(name):
        return ModelType.CHAT
    if architecture or str_tuple(config.get("architectures")) or framework is Framework.GGUF:
        return ModelType.BASE
    return ModelType.UNKNOWN


def _is_embedding(name: str, documents: Documents, config: Json) -> bool:
    if any(file in documents.files for file in _EMBEDDING_FILES):
        return True
    if _EMBEDDING_ARCHITECTURES.intersection(str_tuple(config.get("architectures"))):
        return True
    return _EMBEDDING_NAME.search(name) is not None


_CAPABILITIES: dict[ModelType, tuple[Capability, ...]] = {
    ModelType.CHAT: (Capability.TEXT_GENERATION, Capability.CHAT),
    ModelType.BASE: (Capability.TEXT_GENERATION,),
    ModelType.EMBEDDING: (Capability.EMBEDDINGS,),
    ModelType.UNKNOWN: (),
}


def _modalities(config: Json) -> tuple[Modality, ...]:
    found: list[Modality] = []
    if any(config.get(key) is not None for key in _VISION_KEYS):
        found.append(Modality.VISION)
    architecture = (nonempty_str(config.get("model_type")) or "").lower()
    if architecture in _AUDIO_ONLY or any(config.get(key) is not None for key in _AUDIO_KEYS):
        found.append(Modality.AUDIO)
    return tuple(found)


def _facts(
    documents: Documents,
    config: Json,
    text_config: Json,
    weights: Weights,
    quantization: Quantization | None,
) -> ModelFacts:
    def number(*keys: str) -> int | None:
        return positive_int(config, *keys) or positive_int(text_config, *keys)

    hidden = number("hidden_size", "n_embd", "d_model", "dim")
    heads = number("num_attention_heads", "n_head", "n_heads")
    card = documents.card
    architecture = nonempty_str(config.get("model_type"))
    return ModelFacts(
        architecture=printable(architecture[:60]) if architecture else None,
        layers=number("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        hidden_size=hidden,
        vocab_size=number("vocab_size"),
        kv_heads=number("num_key_value_heads") or heads,
        head_dim=number("head_dim") or (hidden // heads if hidden and heads else None),
        parameters=_parameters(weights.elements, quantization),
        license=_short(card.get("license_name")) or _short(card.get("license")),
        base_model=_short(card.get("base_model")),
        tags=tuple(printable(tag[:60]) for tag in str_tuple(card.get("tags"))[:24]),
    )


def _short(value: object) -> str | None:
    texts = str_tuple(value)
    return printable(texts[0][:120]) if texts and texts[0].strip() else None


def _parameters(elements: dict[str, int], quantization: Quantization | None) -> int | None:
    """Count parameters: MLX packs 32/bits of them into one U32, with a scale and a bias per group."""
    total = sum(elements.values())
    packed = elements.get("U32", 0)
    if quantization is not None and packed and 1 <= quantization.bits <= 32:
        unpacked = packed * 32 // quantization.bits
        helpers = 2 * unpacked // quantization.group_size if quantization.group_size else 0
        total = total - packed + unpacked - helpers
    return total if total > 0 else None
