"""Scans the models in the cache: the reports behind the app's model list, `list` and `health`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.contract.results import (
    Finding,
    FindingCode,
    Health,
    HealthData,
    HealthEntry,
    HealthSummary,
    ListData,
    Model,
    Severity,
)
from mlxk_tui.ops.core.blocking import run_blocking
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report
from mlxk_tui.ops.health.verdict_cache import VerdictCache

if TYPE_CHECKING:
    from mlxk_tui.ops.health.verify import Verification

_EXTERNAL_FINDINGS = {FindingCode.BROKEN_LINK, FindingCode.LINK_OUTSIDE_CACHE, FindingCode.UNREADABLE}
"""Findings that can disappear without a change inside the repo; such reports are not cached."""
_BATCH_SECONDS = 0.03
"""Time in which a scan collects reports into a batch: about two frames."""


async def inspect_model(
    cache: Cache, spec: str, *, runtime: Runtime | None = None, partial: bool = True
) -> Report:
    """Evaluate the model `NAME[@REV]`, by default for this machine's runtime.

    With `partial` a part of a name suffices.

    Raises:
        OpError: `validation_error`, `model_not_found`, `ambiguous_match`, `revision_not_found`,
            `cache_not_found`, `permission_denied`.
    """

    from mlxk_tui.ops.health.verdict import inspect_repo  # not needed by `list` with cached verdicts

    def work() -> Report:
        found = cache.find(spec, partial=partial)
        return inspect_repo(cache, found.ref, runtime or Runtime.detect(), found.spec.revision)

    return await run_blocking(work)


def iter_reports(
    cache: Cache,
    stop: threading.Event | None = None,
    *,
    pattern: str | None = None,
    runtime: Runtime | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Iterator[Report]:
    """Yield a report for each repo, sorted by name. Blocking; call it in a thread.

    Repos that are removed meanwhile are skipped; a missing cache folder has no models. `clock` returns the
    time in nanoseconds since the epoch, for comparison with file times.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    machine = runtime or Runtime.detect()
    verdicts = VerdictCache.for_cache(cache, machine)
    for ref in list_repos(cache):
        if stop is not None and stop.is_set():
            return
        with contextlib.suppress(OpError):  # removed meanwhile
            if pattern is None or pattern.casefold() in ref.name.casefold():
                yield _cached_or_new_report(cache, ref, machine, verdicts, clock())
            else:
                verdicts.retain(ref)
    verdicts.save()


def _cached_or_new_report(
    cache: Cache, ref: RepoRef, runtime: Runtime, verdicts: VerdictCache, began_ns: int
) -> Report:
    """Return the cached report of an unchanged repo, or evaluate it."""
    known = verdicts.get(ref)
    if known is not None:
        return known
    from mlxk_tui.ops.cache.repo_scanner import read_repo
    from mlxk_tui.ops.health.verdict import evaluate

    repo = read_repo(cache, ref)
    report = evaluate(repo, repo.selected, runtime)
    if repo.fingerprint_paths and not any(finding.code in _EXTERNAL_FINDINGS for finding in report.findings):
        verdicts.put(report, repo.fingerprint_paths, began_ns)
    return report


def list_repos(cache: Cache) -> list[RepoRef]:
    """Return the repos of a cache; an empty list if the cache does not exist yet.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    try:
        return cache.repos()
    except OpError as error:
        if error.type is ErrorType.CACHE_NOT_FOUND and cache.is_absent():
            return []
        raise


async def scan(cache: Cache, *, runtime: Runtime | None = None) -> AsyncIterator[Report]:
    """Yield a report for each repo as soon as it is evaluated, sorted by name.

    One thread does the work; when the iterator is closed, it stops after the current repo.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    import asyncio  # not needed by `list` and `health`

    loop = asyncio.get_running_loop()
    batches: asyncio.Queue[list[Report] | None] = asyncio.Queue()
    stop = threading.Event()

    def send(batch: list[Report] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(batches.put_nowait, batch)

    def work() -> None:
        batch: list[Report] = []
        last = 0.0  # so that the first report is sent immediately
        try:
            for report in iter_reports(cache, stop, runtime=runtime):
                batch.append(report)
                if time.monotonic() - last > _BATCH_SECONDS:
                    send(batch)
                    batch, last = [], time.monotonic()
        finally:
            if batch:
                send(batch)
            send(None)

    worker = asyncio.create_task(asyncio.to_thread(work))
    # If the consumer stops early, the result is retrieved here so that asyncio does not log it.
    worker.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        while (batch := await batches.get()) is not None:
            for report in batch:
                yield report
        await worker  # raises the error of the scan, if any
    finally:
        stop.set()


async def list_models(
    cache: Cache, pattern: str | None = None, *, runtime: Runtime | None = None
) -> ListData:
    """Return the models whose name contains `pattern`, ignoring case; sorted by name.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    stop = threading.Event()

    def work() -> list[Model]:
        return [report.model for report in iter_reports(cache, stop, pattern=pattern, runtime=runtime)]

    models = await run_blocking(work, stop)
    return ListData(models=models, count=len(models))


async def check_health(
    cache: Cache,
    spec: str | None = None,
    *,
    verify: bool = False,
    on_event: OnEvent = ignore_event,
    runtime: Runtime | None = None,
) -> HealthData:
    """Check all models, or the one of `NAME[@REV]`; with `verify` also the checksums of its files.

    Raises:
        OpError: the errors of `inspect_model` if a spec is given, `permission_denied`, `cache_not_found`.
    """
    stop = threading.Event()

    def work() -> HealthData:
        machine = runtime or Runtime.detect()
        if spec is None and not verify:
            return _summary([health_entry(report) for report in iter_reports(cache, stop, runtime=machine)])
        if spec is None:
            targets: list[tuple[RepoRef, str | None]] = [(ref, None) for ref in list_repos(cache)]
        else:
            found = cache.find(spec)
            targets = [(found.ref, found.spec.revision)]
        entries: list[HealthEntry] = []
        for number, (ref, revision) in enumerate(targets):
            if stop.is_set():
                break
            on_event(Progress("scan", ref.name, 0, 0, 0.0, number, len(targets)))
            try:
                entries.append(
                    _check_entry(cache, ref, revision, machine, stop, on_event if verify else None)
                )
            except OpError:
                if spec is not None:
                    raise  # otherwise the repo was removed meanwhile
        return _summary(entries)

    return await run_blocking(work, stop)


def _check_entry(
    cache: Cache,
    ref: RepoRef,
    revision: str | None,
    runtime: Runtime,
    stop: threading.Event,
    on_event: OnEvent | None,
) -> HealthEntry:
    """Evaluate one repo without the verdict cache; with `on_event` verify its checksums too."""
    from mlxk_tui.ops.cache.repo_scanner import read_repo
    from mlxk_tui.ops.health.verdict import evaluate
    from mlxk_tui.ops.health.verify import verify_repo

    repo = read_repo(cache, ref)
    snapshot = repo.find_snapshot(revision)
    report = evaluate(repo, snapshot, runtime)
    hashed = verify_repo(repo, snapshot, stop, on_event) if on_event is not None and snapshot else None
    return health_entry(report, hashed)


def health_entry(report: Report, verification: Verification | None = None) -> HealthEntry:
    """Return the contract's entry for a report, with checksums if they were verified."""
    findings = [*(verification.findings if verification else ()), *report.findings]
    broken = [f for f in findings if f.severity is Severity.ERROR and f not in _runtime_findings(report)]
    if broken:
        reason = broken[0].message
    elif report.model.runtime_compatible:
        reason = "Model is healthy"
    else:
        reason = f"Files are healthy, but the model cannot run here: {report.model.reason}"
    return HealthEntry(
        name=report.model.name,
        status=Health.UNHEALTHY if broken else Health.HEALTHY,
        reason=reason,
        findings=findings,
        checksums=verification.checksums if verification else None,
    )


def _runtime_findings(report: Report) -> tuple[Finding, ...]:
    """Return the findings about running: a healthy model has no other errors."""
    return report.findings if report.model.health is Health.HEALTHY else ()


def _summary(entries: list[HealthEntry]) -> HealthData:
    healthy = [entry for entry in entries if entry.status is Health.HEALTHY]
    unhealthy = [entry for entry in entries if entry.status is Health.UNHEALTHY]
    return HealthData(
        healthy=healthy,
        unhealthy=unhealthy,
        summary=HealthSummary(total=len(entries), healthy_count=len(healthy), unhealthy_count=len(unhealthy)),
    )
