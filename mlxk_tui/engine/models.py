"""Finds a cached model by its name and checks that it is healthy, runnable and fits into memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path

from mlxk_tui.engine.limits import memory_verdict
from mlxk_tui.ops.cache.cache import Cache, ResolvedSpec
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import FindingCode, Framework
from mlxk_tui.ops.contract.terms import MemoryFit, ModelType
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report
from mlxk_tui.ops.health.verdict import evaluate


@dataclass(frozen=True)
class RunnableModel:
    """A model that the engine can run, identified by its folder."""

    name: str
    """Name for display and in requests."""
    folder: Path
    """The snapshot folder."""
    memory_bytes: int | None = None
    """Estimated memory for the weights and a conversation; None skips the memory check."""
    float32_bytes: int | None = None
    """The same estimate with float32 weights."""
    context_length: int | None = None
    """In tokens, from config.json."""
    hash: str | None = None
    """Commit hash of the snapshot."""
    fit: MemoryFit | None = None
    """Result of comparing the estimate with this machine; `tight` deserves a warning."""
    forced: bool = False
    """Load the model regardless of the memory."""
    embedding: bool = False
    """Whether it is an embedding model."""


async def find_runnable(
    cache: Cache, spec: str, *, force: bool = False, partial: bool = True
) -> RunnableModel:
    """Return the model with the spec `NAME[@REV]`.

    Args:
        cache: the Hugging Face cache.
        spec: the model's name, or a part of it, with an optional revision.
        force: accept a model that does not fit into memory.
        partial: accept a part of a name.

    Raises:
        OpError: `model_not_runnable` with the reason, `insufficient_memory` with the numbers,
            `dependency_missing` if mlx-lm is not installed, and the errors of `Cache.find` and
            `Repo.find_snapshot`.
    """
    return await asyncio.to_thread(_find, cache, spec, force, partial)


def with_draft(model: RunnableModel, draft: RunnableModel, *, force: bool = False) -> RunnableModel:
    """Return the model with the memory estimates of both models, which are loaded together.

    Raises:
        OpError: `insufficient_memory` with the numbers, unless `force` is set.
    """
    if model.memory_bytes is None or draft.memory_bytes is None:
        return model
    needed = model.memory_bytes + draft.memory_bytes
    runtime = Runtime.detect()
    fit = memory_verdict(needed, runtime).fit
    if fit is MemoryFit.TOO_LARGE and not force:
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} and its draft model together need about {format_size(needed)} of memory; models "
            f"can use {format_size(runtime.memory_bytes)} here.",
            remedy=Remedy.LEAVE_OUT_DRAFT,
            facts=ErrorFacts(name=model.name, needed_bytes=needed, available_bytes=runtime.memory_bytes),
        )
    both = model.float32_bytes + draft.float32_bytes if model.float32_bytes and draft.float32_bytes else None
    return replace(model, memory_bytes=needed, float32_bytes=both, fit=fit)


def _find(cache: Cache, spec: str, force: bool, partial: bool) -> RunnableModel:
    found = cache.find(spec, partial=partial)
    repo = read_repo(cache, found.ref)
    snapshot = repo.find_snapshot(found.spec.revision)
    runtime = Runtime.detect()
    report = evaluate(repo, snapshot, runtime)
    model = report.model
    _refuse_missing(report)
    if snapshot is None or not model.runtime_compatible:
        raise _not_runnable(found, report)
    if model.memory_fit is MemoryFit.TOO_LARGE and not force:
        raise OpError(
            ErrorType.INSUFFICIENT_MEMORY,
            f"{model.name} needs about {format_size(model.memory_bytes)} of memory; models can use "
            f"{format_size(runtime.memory_bytes)} here.",
            remedy=Remedy.CHOOSE_SMALLER_MODEL,
            facts=ErrorFacts(
                name=model.name, needed_bytes=model.memory_bytes, available_bytes=runtime.memory_bytes
            ),
        )
    return RunnableModel(
        name=model.name,
        folder=Path(snapshot.path),
        memory_bytes=model.memory_bytes,
        float32_bytes=model.memory_float32_bytes,
        context_length=model.context_length,
        hash=model.hash,
        fit=model.memory_fit,
        forced=force,
        embedding=model.model_type is ModelType.EMBEDDING,
    )


def _refuse_missing(report: Report) -> None:
    if any(finding.code is FindingCode.MLX_LM_MISSING for finding in report.findings):
        raise OpError(
            ErrorType.DEPENDENCY_MISSING,
            "mlx-lm is not installed here, so no model can run. It needs Apple silicon or Linux.",
            remedy=Remedy.INSTALL_PACKAGE,
            facts=ErrorFacts(package="mlx-lm"),
        )


def _not_runnable(found: ResolvedSpec, report: Report) -> OpError:
    model = report.model
    mlx = model.framework is Framework.MLX
    reason = model.reason or "It has no snapshot."
    return OpError(
        ErrorType.MODEL_NOT_RUNNABLE,
        f"{printable(found.ref.name)} cannot run here: {reason}",
        remedy=Remedy.CHECK_HEALTH if mlx else Remedy.CHOOSE_MLX_MODEL,
        facts=ErrorFacts(name=found.ref.name),
    )
