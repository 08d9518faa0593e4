"""Evaluates one repo: reads it, detects what it is, and checks integrity and compatibility."""

from __future__ import annotations

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.documents import read_documents
from mlxk_tui.ops.cache.repo import Repo, Snapshot
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.contract.results import Framework, Health, Model, Severity
from mlxk_tui.ops.core.text import iso_utc
from mlxk_tui.ops.health.compatibility import check_runtime, estimate_float32, estimate_memory
from mlxk_tui.ops.health.detect import detect
from mlxk_tui.ops.health.integrity import check_integrity
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report


def inspect_repo(cache: Cache, ref: RepoRef, runtime: Runtime, revision: str | None = None) -> Report:
    """Read and evaluate one repo. Blocking; call it in a thread.

    Raises:
        OpError: `model_not_found` if the repo was removed meanwhile, `revision_not_found`, `ambiguous_match`.
    """
    repo = read_repo(cache, ref)
    return evaluate(repo, repo.find_snapshot(revision), runtime)


def evaluate(repo: Repo, snapshot: Snapshot | None, runtime: Runtime) -> Report:
    """Evaluate a snapshot of a repo that has been read."""
    documents = read_documents(snapshot)
    integrity = check_integrity(repo, snapshot, documents)
    detection = detect(repo.ref.name, documents, integrity.weights)
    healthy = not any(finding.severity is Severity.ERROR for finding in integrity.findings)
    memory = estimate_memory(integrity.weights, detection) if detection.framework is Framework.MLX else None
    findings = integrity.all_findings
    if integrity.first_error is None:
        findings += check_runtime(runtime, detection, documents, memory)
    first = next((finding for finding in findings if finding.severity is Severity.ERROR), None)
    model = Model(
        name=repo.ref.name,
        hash=snapshot.hash if snapshot else repo.selected_hash,
        size_bytes=snapshot.size_bytes if snapshot else 0,
        last_modified=iso_utc(snapshot.modified if snapshot else repo.modified),
        framework=detection.framework,
        model_type=detection.model_type,
        capabilities=list(detection.capabilities),
        modalities=list(detection.modalities),
        health=Health.HEALTHY if healthy else Health.UNHEALTHY,
        runtime_compatible=first is None,
        reason=first.message if first else None,
        cached=True,
        quantization=detection.quantization,
        context_length=detection.context_length,
        revisions=len(repo.snapshots),
        disk_bytes=repo.disk_bytes,
        memory_bytes=memory,
        memory_fit=runtime.fit(memory),
        memory_float32_bytes=estimate_float32(integrity.weights, detection) if memory is not None else None,
    )
    return Report(repo.ref, model, findings, detection.facts)
