"""Every model of the cache, judged: the scan that fills the app, `list` and `health`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

from mlxk_tui.ops.cache import Cache, RepoRef
from mlxk_tui.ops.contract import (
    Finding,
    FindingCode,
    Framework,
    Health,
    HealthData,
    HealthEntry,
    HealthSummary,
    ListData,
    Model,
    Severity,
)
from mlxk_tui.ops.detect import detect
from mlxk_tui.ops.documents import read_documents
from mlxk_tui.ops.errors import ErrorType, OpError
from mlxk_tui.ops.events import OnEvent, Progress, ignore
from mlxk_tui.ops.format import iso_utc
from mlxk_tui.ops.health import check_integrity
from mlxk_tui.ops.remember import Verdicts
from mlxk_tui.ops.repo import Repo, Snapshot, read_repo
from mlxk_tui.ops.report import Report
from mlxk_tui.ops.runtime import Runtime, check_runtime, estimate_memory
from mlxk_tui.ops.verify import Verification, verify_repo

_REACHES_OUT = {FindingCode.BROKEN_LINK, FindingCode.LINK_OUTSIDE_CACHE, FindingCode.UNREADABLE}
"""Findings that can end without a change inside the repo; such verdicts are not remembered."""
_BATCH_SECONDS = 0.03
"""How long a scan gathers models before it hands them over: about two frames."""


def inspect(cache: Cache, ref: RepoRef, runtime: Runtime, revision: str | None = None) -> Report:
    """Read and judge one repo; blocking, for threads.

    Raises:
        OpError: `model_not_found` when the repo vanished, `revision_not_found`, `ambiguous_match`.
    """
    repo = read_repo(cache, ref)
    return judge(repo, repo.revision(revision), runtime)


def judge(repo: Repo, snapshot: Snapshot | None, runtime: Runtime) -> Report:
    """Judge a snapshot of a repo that has been read."""
    documents = read_documents(snapshot)
    integrity = check_integrity(repo, snapshot, documents)
    detection = detect(repo.ref.name, documents, integrity.weights)
    sound = not any(finding.severity is Severity.ERROR for finding in integrity.findings)
    memory = estimate_memory(integrity.weights, detection) if detection.framework is Framework.MLX else None
    obstacles = check_runtime(runtime, detection, documents, memory) if sound else ()
    findings = (*integrity.findings, *obstacles)
    first = next((finding for finding in findings if finding.severity is Severity.ERROR), None)
    model = Model(
        name=repo.ref.name,
        hash=snapshot.hash if snapshot else repo.selected_hash,
        size_bytes=snapshot.size_bytes if snapshot else 0,
        last_modified=iso_utc(snapshot.modified if snapshot else None),
        framework=detection.framework,
        model_type=detection.model_type,
        capabilities=list(detection.capabilities),
        health=Health.HEALTHY if sound else Health.UNHEALTHY,
        runtime_compatible=first is None,
        reason=first.message if first else None,
        cached=True,
        quantization=detection.quantization,
        context_length=detection.context_length,
        revisions=len(repo.snapshots),
        disk_bytes=repo.disk_bytes,
        memory_bytes=memory,
        memory_fit=runtime.fit(memory),
    )
    return Report(repo.ref, model, findings, detection.facts)


async def inspect_model(cache: Cache, spec: str, *, runtime: Runtime | None = None) -> Report:
    """Read and judge the model of `NAME[@REV]`, against this machine's runtime unless one is given.

    Raises:
        OpError: `validation_error`, `model_not_found`, `ambiguous_match`, `revision_not_found`,
            `cache_not_found`, `permission_denied`.
    """

    def work() -> Report:
        found = cache.find(spec)
        return inspect(cache, found.ref, runtime or Runtime.here(), found.spec.revision)

    return await asyncio.to_thread(work)


def walk(
    cache: Cache,
    stop: threading.Event | None = None,
    *,
    pattern: str | None = None,
    runtime: Runtime | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Iterator[Report]:
    """Yield a report for each repo, sorted by name; blocking, for threads.

    A repo that vanishes meanwhile is left out; a folder that does not exist yet holds no models.
    `clock` tells the time, in nanoseconds since the epoch, that file times are compared with.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    machine = runtime or Runtime.here()
    verdicts = Verdicts.of(cache, machine)
    for ref in repos_or_none(cache):
        if stop is not None and stop.is_set():
            return
        with contextlib.suppress(OpError):  # vanished
            if pattern is None or pattern.casefold() in ref.name.casefold():
                yield _recall(cache, ref, machine, verdicts, clock())
            else:
                verdicts.keep(ref)
    verdicts.save()


def _recall(cache: Cache, ref: RepoRef, runtime: Runtime, verdicts: Verdicts, began_ns: int) -> Report:
    """Return the remembered report of an unchanged repo, else judge it."""
    known = verdicts.get(ref)
    if known is not None:
        return known
    repo = read_repo(cache, ref)
    report = judge(repo, repo.selected, runtime)
    if not any(finding.code in _REACHES_OUT for finding in report.findings):
        verdicts.put(report, repo.witnesses, began_ns)
    return report


def repos_or_none(cache: Cache) -> list[RepoRef]:
    """Return the repos of a cache; none where it does not exist yet.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    try:
        return cache.repos()
    except OpError as error:
        if error.type is ErrorType.CACHE_NOT_FOUND and not cache.root.exists():
            return []
        raise


async def scan(cache: Cache, *, runtime: Runtime | None = None) -> AsyncIterator[Report]:
    """Yield a report for each repo as soon as it is judged, sorted by name.

    The work is done in one thread; it stops within a repo's time when the iterator is closed.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    loop = asyncio.get_running_loop()
    batches: asyncio.Queue[list[Report] | None] = asyncio.Queue()
    stop = threading.Event()

    def send(batch: list[Report] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(batches.put_nowait, batch)

    def work() -> None:
        batch: list[Report] = []
        last = 0.0  # the first report goes out at once
        try:
            for report in walk(cache, stop, runtime=runtime):
                batch.append(report)
                if time.monotonic() - last > _BATCH_SECONDS:
                    send(batch)
                    batch, last = [], time.monotonic()
        finally:
            if batch:
                send(batch)
            send(None)

    worker = asyncio.create_task(asyncio.to_thread(work))
    # Whoever stops listening early is not told how the walk ended.
    worker.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        while (batch := await batches.get()) is not None:
            for report in batch:
                yield report
        await worker  # raises what the walk raised
    finally:
        stop.set()


async def list_models(
    cache: Cache, pattern: str | None = None, *, runtime: Runtime | None = None
) -> ListData:
    """Return every model whose name holds `pattern`, whatever the case; sorted by name.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    stop = threading.Event()

    def work() -> list[Model]:
        return [report.model for report in walk(cache, stop, pattern=pattern, runtime=runtime)]

    try:
        models = await asyncio.to_thread(work)
    finally:
        stop.set()
    return ListData(models=models, count=len(models))


async def check_health(
    cache: Cache,
    spec: str | None = None,
    *,
    verify: bool = False,
    on_event: OnEvent = ignore,
    runtime: Runtime | None = None,
) -> HealthData:
    """Judge every model, or the one of `NAME[@REV]`; with `verify` its bytes too.

    Raises:
        OpError: those of `inspect_model` when a spec is given, `permission_denied`, `cache_not_found`.
    """
    stop = threading.Event()

    def work() -> HealthData:
        machine = runtime or Runtime.here()
        if spec is None:
            targets: list[tuple[RepoRef, str | None]] = [(ref, None) for ref in repos_or_none(cache)]
        else:
            found = cache.find(spec)
            targets = [(found.ref, found.spec.revision)]
        entries: list[HealthEntry] = []
        for number, (ref, revision) in enumerate(targets):
            if stop.is_set():
                break
            on_event(Progress("scan", ref.name, 0, 0, 0.0, number, len(targets)))
            try:
                repo = read_repo(cache, ref)
                snapshot = repo.revision(revision)
            except OpError:
                if spec is not None:
                    raise
                continue  # vanished
            report = judge(repo, snapshot, machine)
            checked = verify_repo(repo, snapshot, stop, on_event) if verify and snapshot else None
            entries.append(health_entry(report, checked))
        return _summary(entries)

    try:
        return await asyncio.to_thread(work)
    finally:
        stop.set()


def health_entry(report: Report, verification: Verification | None = None) -> HealthEntry:
    """Return the verdict of a report, its checksums included where they were verified."""
    findings = [*(verification.findings if verification else ()), *report.findings]
    broken = [f for f in findings if f.severity is Severity.ERROR and f not in _obstacles(report)]
    if broken:
        reason = broken[0].message
    elif report.model.runtime_compatible:
        reason = "Model is healthy"
    else:
        reason = f"Files are healthy; it will not run here: {report.model.reason}"
    return HealthEntry(
        name=report.model.name,
        status=Health.UNHEALTHY if broken else Health.HEALTHY,
        reason=reason,
        findings=findings,
        checksums=verification.checksums if verification else None,
    )


def _obstacles(report: Report) -> tuple[Finding, ...]:
    """Findings that concern running, not soundness: a sound model has no other errors."""
    return report.findings if report.model.health is Health.HEALTHY else ()


def _summary(entries: list[HealthEntry]) -> HealthData:
    healthy = [entry for entry in entries if entry.status is Health.HEALTHY]
    unhealthy = [entry for entry in entries if entry.status is Health.UNHEALTHY]
    return HealthData(
        healthy=healthy,
        unhealthy=unhealthy,
        summary=HealthSummary(total=len(entries), healthy_count=len(healthy), unhealthy_count=len(unhealthy)),
    )
