"""Every model of the cache, judged: the scan that fills the app, `list` and `health`."""

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

_REACHES_OUT = {FindingCode.BROKEN_LINK, FindingCode.LINK_OUTSIDE_CACHE, FindingCode.UNREADABLE}
"""Findings that can end without a change inside the repo; such verdicts are not remembered."""
_BATCH_SECONDS = 0.03
"""How long a scan gathers models before it hands them over: about two frames."""


async def inspect_model(
    cache: Cache, spec: str, *, runtime: Runtime | None = None, partial: bool = True
) -> Report:
    """Read and judge the model of `NAME[@REV]`, against this machine's runtime unless one is given.

    Without `partial` a part of a name does not count.

    Raises:
        OpError: `validation_error`, `model_not_found`, `ambiguous_match`, `revision_not_found`,
            `cache_not_found`, `permission_denied`.
    """

    from mlxk_tui.ops.health.verdict import inspect_repo  # `list` of remembered verdicts does without

    def work() -> Report:
        found = cache.find(spec, partial=partial)
        return inspect_repo(cache, found.ref, runtime or Runtime.detect(), found.spec.revision)

    return await run_blocking(work)


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
    machine = runtime or Runtime.detect()
    verdicts = VerdictCache.for_cache(cache, machine)
    for ref in repos_or_none(cache):
        if stop is not None and stop.is_set():
            return
        with contextlib.suppress(OpError):  # vanished
            if pattern is None or pattern.casefold() in ref.name.casefold():
                yield _recall(cache, ref, machine, verdicts, clock())
            else:
                verdicts.retain(ref)
    verdicts.save()


def _recall(cache: Cache, ref: RepoRef, runtime: Runtime, verdicts: VerdictCache, began_ns: int) -> Report:
    """Return the remembered report of an unchanged repo, else judge it."""
    known = verdicts.get(ref)
    if known is not None:
        return known
    from mlxk_tui.ops.cache.repo_scanner import read_repo
    from mlxk_tui.ops.health.verdict import evaluate

    repo = read_repo(cache, ref)
    report = evaluate(repo, repo.selected, runtime)
    if repo.fingerprint_paths and not any(finding.code in _REACHES_OUT for finding in report.findings):
        verdicts.put(report, repo.fingerprint_paths, began_ns)
    return report


def repos_or_none(cache: Cache) -> list[RepoRef]:
    """Return the repos of a cache; none where it does not exist yet.

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
    """Yield a report for each repo as soon as it is judged, sorted by name.

    The work is done in one thread; it stops within a repo's time when the iterator is closed.

    Raises:
        OpError: `permission_denied`, or `cache_not_found` where the cache is not a folder.
    """
    import asyncio  # `list` and `health` do without

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
    """Judge every model, or the one of `NAME[@REV]`; with `verify` its bytes too.

    Raises:
        OpError: those of `inspect_model` when a spec is given, `permission_denied`, `cache_not_found`.
    """
    stop = threading.Event()

    def work() -> HealthData:
        machine = runtime or Runtime.detect()
        if spec is None and not verify:
            return _summary([health_entry(report) for report in walk(cache, stop, runtime=machine)])
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
                entries.append(_examine(cache, ref, revision, machine, stop, on_event if verify else None))
            except OpError:
                if spec is not None:
                    raise  # else it vanished
        return _summary(entries)

    return await run_blocking(work, stop)


def _examine(
    cache: Cache,
    ref: RepoRef,
    revision: str | None,
    runtime: Runtime,
    stop: threading.Event,
    on_event: OnEvent | None,
) -> HealthEntry:
    """Read and judge one repo anew; with `on_event` hash it too."""
    from mlxk_tui.ops.cache.repo_scanner import read_repo
    from mlxk_tui.ops.health.verdict import evaluate
    from mlxk_tui.ops.health.verify import verify_repo

    repo = read_repo(cache, ref)
    snapshot = repo.find_snapshot(revision)
    report = evaluate(repo, snapshot, runtime)
    hashed = verify_repo(repo, snapshot, stop, on_event) if on_event is not None and snapshot else None
    return health_entry(report, hashed)


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
