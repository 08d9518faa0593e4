"""Pulls a model into the cache: preflight, plan, transfer, and finally the ref.

Nothing is written before the hub has confirmed that the commit exists and is readable. Then
`trees/<commit>.json` is written, so that a killed pull is recognized as unfinished; then the files, each
after its checksum was verified; last the ref, so that it never names an incomplete snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from mlxk_tui.ops.cache.access_record import write_access
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.cache.documents import read_documents
from mlxk_tui.ops.cache.names import Spec, name_to_dir, parse_spec
from mlxk_tui.ops.cache.repo import Repo, Snapshot
from mlxk_tui.ops.cache.selection import read_selection, remove_selection, write_selection
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.connection_count import FIRST_CONNECTIONS
from mlxk_tui.ops.download.download import download
from mlxk_tui.ops.download.options import DownloadOptions, DownloadResult, DownloadSource
from mlxk_tui.ops.download.transport.connection import ConnectionPool, Origin
from mlxk_tui.ops.health.integrity import check_integrity
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.hub.errors import RequestContext, map_error
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.local_files import read_cached
from mlxk_tui.ops.pull.patterns import FilePatterns
from mlxk_tui.ops.pull.plan import MAIN, PullPlan, candidate_names, plan_pull
from mlxk_tui.ops.pull.refs import mark_cache, write_ref, write_tree
from mlxk_tui.ops.pull.results import (
    already_complete,
    blob_bytes,
    data_without_plan,
    failed_pull,
    planned,
    pulled,
)
from mlxk_tui.ops.pull.via_hub import download_via_hub

HTTP_LIMIT = 50_000_000_000
"""Size in bytes from which the hub serves a file only through Xet."""


async def pull(
    cache: Cache,
    spec: str,
    *,
    hub: Hub,
    dry_run: bool = False,
    via_hub: bool = False,
    verify: bool = False,
    suspect: Collection[str] = (),
    patterns: FilePatterns | None = None,
    plan: PullPlan | None = None,
    options: DownloadOptions | None = None,
    runtime: Runtime | None = None,
    on_event: OnEvent = ignore_event,
    on_plan: Callable[[PullPlan], None] | None = None,
) -> PullData:
    """Download `NAME[@REV]` into the cache, update it, or repair it.

    Only missing and broken files are downloaded. When the task is cancelled all bytes stay on disk, and the
    same call resumes.

    Args:
        cache: the cache to pull into.
        spec: `NAME[@REV]`; see `plan.py` for the resolution of names.
        hub: the hub to pull from.
        dry_run: plan only; nothing is written.
        via_hub: let huggingface_hub transfer the files (Xet) instead of the downloader.
        verify: hash all cached files, and download those that differ from their checksum.
        suspect: paths whose content may be broken, which are hashed.
        patterns: download only files that match, and record that the snapshot is partial.
        plan: what `plan_pull` returned a moment ago; by default it is called.
        options: limits and time-outs of the downloader.
        runtime: the memory to compare with; by default that of this machine.
        on_event: receives progress, in threads.
        on_plan: receives the plan before anything is written.

    Raises:
        OpError: the errors of `plan_pull`, and `disk_full`, `permission_denied`, `network_error`,
            `download_failed`, `checksum_mismatch`; each with a PullData as `data`.
    """
    received = ReceivedBytes(on_event)
    bounds = options or DownloadOptions()
    pool = ConnectionPool(bounds.connect_s, bounds.read_s)
    try:
        try:
            if plan is None:
                if not dry_run and not via_hub and not hub.offline:
                    await asyncio.to_thread(_prepare_connections, pool, hub, cache, parse_spec(spec))
                plan = await plan_pull(
                    cache,
                    spec,
                    hub=hub,
                    verify=verify,
                    suspect=suspect,
                    patterns=patterns,
                    runtime=runtime,
                    on_event=on_event,
                )
        except OpError as error:
            cached_result = await _cached_result(cache, parse_spec(spec), error)
            if cached_result is None:
                raise
            return cached_result
        if on_plan is not None:
            on_plan(plan)
        if dry_run:
            return planned(plan)
        if not plan.missing and plan.ref_is_current:
            if plan.access is not None:
                with contextlib.suppress(OSError):  # a read-only cache is complete all the same
                    await asyncio.to_thread(write_access, plan.folder, plan.access)
            return already_complete(plan)
        return await _execute(cache, plan, hub, pool, bounds, via_hub=via_hub, on_event=received.on_event)
    except OpError as error:
        error.as_access_denied()
        if error.data is None:
            denied = error.type is ErrorType.ACCESS_DENIED
            status = DownloadStatus.ACCESS_DENIED if denied else DownloadStatus.FAILED
            error.data = failed_pull(spec, plan, status, error.message, downloaded=received.total_bytes)
        raise
    finally:
        pool.close()


def _prepare_connections(pool: ConnectionPool, hub: Hub, cache: Cache, spec: Spec) -> None:
    """Connect to the hub while a pull is planned, if the model is new, so that there is much to download."""
    with contextlib.suppress(OpError, ValueError):  # the plan reports them
        if not any((cache.root / name_to_dir(name)).exists() for name in candidate_names(cache, spec)):
            pool.prepare(Origin.from_url(urlsplit(hub.endpoint)), FIRST_CONNECTIONS)


async def _execute(
    cache: Cache,
    plan: PullPlan,
    hub: Hub,
    pool: ConnectionPool,
    options: DownloadOptions,
    *,
    via_hub: bool,
    on_event: OnEvent,
) -> PullData:
    if plan.lacks_space:
        raise plan.lacks_space
    try:
        await asyncio.to_thread(_prepare, cache, plan)
        done = await _transfer(cache, plan, hub, pool, options, via_hub=via_hub, on_event=on_event)
        await asyncio.to_thread(write_ref, plan.folder, plan.ref, plan.commit)
    except OSError as error:
        raise map_error(error, RequestContext(hub.endpoint, plan.repo)) from None
    return pulled(plan, done)


def _prepare(cache: Cache, plan: PullPlan) -> None:
    try:
        mark_cache(cache.root)
    except (FileExistsError, NotADirectoryError):
        raise OpError(
            ErrorType.CACHE_NOT_FOUND,
            f"{printable(str(cache.root))} is a file, not a cache folder.",
            remedy=Remedy.CHECK_CACHE_VARIABLES,
        ) from None
    _record_selection(plan)
    write_tree(plan.folder, plan.commit, plan.tree)
    if plan.access is not None:
        write_access(plan.folder, plan.access)


def _record_selection(plan: PullPlan) -> None:
    """Record which files of the commit are expected, before the first one appears.

    Those of earlier partial pulls stay expected. A snapshot of which all files are expected stays so.
    """
    repo = plan.local.repo
    selected = read_selection(repo, plan.commit) if repo is not None else None
    if selected is None and repo is not None and plan.commit in repo.snapshots:
        return
    expected = {entry.path for entry in plan.entries} | (selected or frozenset())
    if plan.is_partial and len(expected) < len(plan.tree):
        write_selection(plan.folder, plan.commit, expected)
    elif selected is not None:
        remove_selection(plan.folder, plan.commit)


async def _transfer(
    cache: Cache,
    plan: PullPlan,
    hub: Hub,
    pool: ConnectionPool,
    options: DownloadOptions,
    *,
    via_hub: bool,
    on_event: OnEvent,
) -> DownloadResult:
    """Download the files; those that only Xet can transfer come last."""
    missing = plan.missing
    huge = [entry for entry in missing if via_hub or entry.size > HTTP_LIMIT]
    normal = [entry for entry in missing if entry not in huge]
    source = DownloadSource(hub.endpoint, plan.repo, plan.commit, await hub.token())
    broken = frozenset(entry.etag for entry in missing if entry.path in plan.local.broken)
    progress = _CombinedProgress(
        on_event, sum({entry.etag: entry.size for entry in missing}.values()), len(missing)
    )
    parts: list[DownloadResult] = []
    if normal:
        bounds = dataclasses.replace(options, redownload=options.redownload | broken)
        files = [entry.remote for entry in normal]
        parts.append(
            await download(source, files, plan.folder, options=bounds, pool=pool, on_event=progress.first)
        )
        progress.bytes_before, progress.files_before = blob_bytes(normal), len(normal)
    if huge:
        names = {entry.etag for entry in huge if entry.path in plan.local.broken}
        files = [entry.remote for entry in huge]
        parts.append(
            await download_via_hub(
                source, files, cache.root, plan.folder, broken=names, on_event=progress.second
            )
        )
    return DownloadResult(
        bytes_downloaded=sum(part.bytes_downloaded for part in parts),
        bytes_reused=sum(part.bytes_reused for part in parts),
        files=sum(part.files for part in parts),
    )


class ReceivedBytes:
    """Counts received bytes from progress events, for the data of a failed pull."""

    def __init__(self, on_event: OnEvent = ignore_event) -> None:
        self._on_event = on_event
        self._first: int | None = None
        self._last = 0

    @property
    def total_bytes(self) -> int:
        """Bytes received since the first event."""
        return max(0, self._last - (self._first or 0))

    def on_event(self, event: Progress) -> None:
        """Count an event and pass it on."""
        if event.stage == "pull":
            self._first = event.bytes_done if self._first is None else self._first
            self._last = event.bytes_done
        self._on_event(event)


@dataclass
class _CombinedProgress:
    """Combines the events of two consecutive transfers into totals over all files."""

    on_event: OnEvent
    bytes_total: int
    files_total: int
    bytes_before: int = 0
    """Bytes of the first transfer."""
    files_before: int = 0

    def first(self, event: Progress) -> None:
        self.on_event(dataclasses.replace(event, bytes_total=self.bytes_total, files_total=self.files_total))

    def second(self, event: Progress) -> None:
        self.first(
            dataclasses.replace(
                event,
                bytes_done=self.bytes_before + event.bytes_done,
                files_done=self.files_before + event.files_done,
            )
        )


async def _cached_result(cache: Cache, spec: Spec, error: OpError) -> PullData | None:
    """Return a result if the hub is unreachable but the cached model is intact; else None."""
    if error.type is not ErrorType.NETWORK_ERROR:
        return None

    def work() -> PullData | None:
        for name in candidate_names(cache, spec):
            repo = read_cached(cache, name)
            snapshot = _intact_snapshot(repo, spec.revision) if repo else None
            if snapshot is not None:
                note = f"Updates could not be checked: {error.message}"
                message = f"{name} is already complete at {snapshot.name[:12]}."
                return data_without_plan(
                    spec,
                    DownloadStatus.ALREADY_EXISTS,
                    message,
                    name=name,
                    snapshot=snapshot,
                    warnings=[note],
                )
        return None

    return await asyncio.to_thread(work)


def _intact_snapshot(repo: Repo, revision: str | None) -> Snapshot | None:
    """Return the cached snapshot of a revision if it has no errors, else None."""
    try:
        snapshot = repo.find_snapshot(revision or (MAIN if MAIN in repo.refs else None))
    except OpError:
        return None
    if snapshot is None:
        return None
    integrity = check_integrity(repo, snapshot, read_documents(snapshot))
    return None if integrity.first_error is not None or integrity.partial is not None else snapshot
