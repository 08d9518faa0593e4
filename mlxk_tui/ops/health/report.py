"""The result of checking one cached repo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import RepoRef

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Finding, Model


@dataclass(frozen=True)
class ModelFacts:
    """Properties of a model for display; None if unknown."""

    architecture: str | None = None
    """`model_type` of config.json."""
    layers: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    parameters: int | None = None
    """Number of parameters by the safetensors headers, with packed quantized weights unpacked."""
    license: str | None = None
    base_model: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """Health and properties of a repo at its selected snapshot."""

    ref: RepoRef
    model: Model
    findings: tuple[Finding, ...]
    """Integrity first, then compatibility; errors before warnings in each."""
    facts: ModelFacts
