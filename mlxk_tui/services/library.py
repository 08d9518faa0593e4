"""The models of the cache in memory: one report a repo, filled by a scan and kept up to date by a watcher.

State flows one way: `Library.run` reads the cache, changes `entries`, and publishes the change; the front end
shows `entries` and never reads the cache itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.names import name_to_dir
from mlxk_tui.ops.cache.watch import Changes, Watcher
from mlxk_tui.ops.contract.terms import Health, MemoryFit, Severity
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import Publisher
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import Report

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Finding, Model
    from mlxk_tui.ops.health.verify import Verification

DEFAULT_ORG = "mlx-community"
"""The organization that is not shown: most models for MLX come from it."""
_BATCH_SECONDS = 0.1
_CLOCK_GRAIN_NS = 2_000_000_000
"""Coarsest time stamp of a file system that is in use (FAT)."""
_BATCH_REPOS = 16
"""Changed repos that are checked before the change is published."""


class ModelState(Enum):
    """The state of a model in one word, with a glyph and a color."""

    GOOD = "good"
    ATTENTION = "attention"
    DOWNLOADING = "downloading"
    """Incomplete, and a pull of this program is running or queued."""
    BAD = "bad"

    @property
    def glyph(self) -> str:
        """One cell that shows the state without color."""
        return {
            ModelState.GOOD: "✓",
            ModelState.ATTENTION: "▲",
            ModelState.DOWNLOADING: "↓",
            ModelState.BAD: "✗",
        }[self]

    @property
    def token(self) -> str:
        """The theme's name for the color of the state."""
        return "accent" if self is ModelState.DOWNLOADING else self.value

    @property
    def style(self) -> str:
        """The color of the state as a style."""
        return f"${self.token}"

    @property
    def rank(self) -> int:
        """Sort order, worst first."""
        order = (ModelState.BAD, ModelState.DOWNLOADING, ModelState.ATTENTION, ModelState.GOOD)
        return order.index(self)


class ScanPhase(Enum):
    """How far the first scan is."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Verified:
    """The result of a verification in this session."""

    result: Verification
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class AvailableUpdate:
    """A newer commit of a model on the hub."""

    commit: str
    """The cached commit that it replaces, 40 hex digits."""
    latest: str
    """The commit on the hub, 40 hex digits."""
    revision: str
    """The branch or tag that names both."""
    last_modified: str | None
    """Last change on the hub: ISO 8601, UTC; None if unknown."""


@dataclass(frozen=True)
class Entry:
    """One repo as it is shown."""

    report: Report
    org: str
    """Safe to show; empty where the name has none."""
    short: str
    """The name without the organisation, safe to show."""
    verified: Verified | None = None
    downloading: bool = False
    """Whether a pull of this program is running or queued."""
    update: AvailableUpdate | None = None
    """The update that the last check found."""

    @property
    def key(self) -> str:
        """The folder name, which is unique even where two names look the same."""
        return self.report.ref.folder_name

    @property
    def name(self) -> str:
        """The full name, safe to show."""
        return f"{self.org}/{self.short}" if self.org else self.short

    @property
    def model(self) -> Model:
        """The contract's model object."""
        return self.report.model

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong; first what the checksums prove."""
        return (self.verified.result.findings if self.verified else ()) + self.report.findings

    @cached_property
    def intact(self) -> bool:
        """Whether the files are complete and correct, as far as is known."""
        broken = self.verified is not None and any(
            finding.severity is Severity.ERROR for finding in self.verified.result.findings
        )
        return self.model.health is Health.HEALTHY and not broken

    @cached_property
    def state(self) -> ModelState:
        """The state that is shown."""
        if not self.intact:
            return ModelState.DOWNLOADING if self.downloading else ModelState.BAD
        tight = self.model.memory_fit in {MemoryFit.TIGHT, MemoryFit.TOO_LARGE}
        return ModelState.GOOD if self.model.runtime_compatible and not tight else ModelState.ATTENTION


@dataclass(frozen=True)
class Changed:
    """Keys of the entries that changed."""

    updated: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


class Library:
    """Reports of every repo in one cache.

    Args:
        cache: the cache to read.
        refresh_seconds: how often it is checked for changes; 0 never.
        clock: seconds since the epoch.
        runtime: what this machine can run; detected when left out.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        refresh_seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
        runtime: Runtime | None = None,
    ) -> None:
        self.cache = cache
        self.clock = clock
        self.refresh_seconds = refresh_seconds
        self.entries: dict[str, Entry] = {}
        """Every known repo by key."""
        self.phase = ScanPhase.LOADING
        self.error: OpError | None = None
        """Why the cache cannot be read, in phase FAILED."""
        self.changed: Publisher[Changed] = Publisher()
        self._downloading: frozenset[str] = frozenset()
        self._updates: Mapping[str, AvailableUpdate] = {}
        self._watcher = Watcher(cache)
        self._given_runtime = runtime
        self._runtime = runtime

    @property
    def machine_bytes(self) -> int:
        """Memory that a model can use here, in bytes; 0 until the first scan."""
        return self._runtime.memory_bytes if self._runtime else 0

    @property
    def without_gpu(self) -> bool:
        """Whether models run on the CPU alone here; False until the first scan."""
        return self._runtime.without_gpu if self._runtime else False

    @property
    def total_bytes(self) -> int:
        """Bytes on disk of all repos."""
        return sum(entry.model.disk_bytes for entry in self.entries.values())

    def now(self) -> datetime:
        """Return the time of the clock, in UTC."""
        return datetime.fromtimestamp(self.clock(), timezone.utc)

    def count(self, *states: ModelState) -> int:
        """Return how many repos are in one of `states`."""
        return sum(entry.state in states for entry in self.entries.values())

    async def run(self) -> None:
        """Scan, then watch until cancelled; a cache that cannot be read is tried again."""
        await self._scan()
        while self.refresh_seconds > 0:
            await asyncio.sleep(self.refresh_seconds)
            await self.refresh()

    async def rescan(self) -> None:
        """Read everything again; each known report stays until its new one is there."""
        self._watcher.reset()
        await self.refresh()

    async def _scan(self) -> None:
        from mlxk_tui.ops.catalog.catalog import scan

        self.phase, self.error = ScanPhase.LOADING, None
        self.changed.publish(Changed())
        began_ns = time.time_ns()
        batch: list[Report] = []
        due = time.monotonic()
        baseline: asyncio.Task[Changes] | None = None
        try:
            self._runtime = await asyncio.to_thread(self._detect_runtime)
            async for report in scan(self.cache, runtime=self._runtime):
                batch.append(report)
                if time.monotonic() >= due:
                    self.put(batch)
                    batch = []
                    # What the watcher compares with from now on; after the first models are on the screen.
                    baseline = baseline or asyncio.create_task(asyncio.to_thread(self._watcher.poll))
                    await asyncio.sleep(0)
                    due = time.monotonic() + _BATCH_SECONDS
            changes = await (baseline or asyncio.to_thread(self._watcher.poll))
            self.phase = ScanPhase.READY
            self.put(batch)
        except OpError as error:
            self._fail(error)
            return
        # A repo may have changed between its report and the baseline: read those again.
        touched = self._watcher.touched_since(began_ns - _CLOCK_GRAIN_NS)
        await self._apply(
            replace(changes, changed=tuple(r for r in changes.changed if r.path.name in touched))
        )

    def _detect_runtime(self) -> Runtime:
        return self._given_runtime or Runtime.detect()

    async def refresh(self) -> None:
        """Check for changes once and read what changed."""
        try:
            changes = await asyncio.to_thread(self._watcher.poll)
        except OpError as error:
            self._fail(error)
            return
        if self.phase is ScanPhase.FAILED:
            self.phase, self.error = ScanPhase.READY, None
            self.changed.publish(Changed())
        if changes:
            self._runtime = await asyncio.to_thread(self._detect_runtime)
        await self._apply(changes)

    async def _apply(self, changes: Changes) -> None:
        self.drop(changes.removed)
        runtime = self._runtime
        if runtime is None:
            return
        for start in range(0, len(changes.changed), _BATCH_REPOS):
            refs = changes.changed[start : start + _BATCH_REPOS]
            reports = await asyncio.to_thread(self._inspect, refs, runtime)
            self.put([report for report in reports if isinstance(report, Report)])
            self.drop(report for report in reports if isinstance(report, str))

    def _inspect(self, refs: Sequence[RepoRef], runtime: Runtime) -> list[Report | str]:
        """Return a report for each repo, or its folder name where it was removed meanwhile."""
        from mlxk_tui.ops.health.verdict import inspect_repo

        reports: list[Report | str] = []
        for ref in refs:
            try:
                reports.append(inspect_repo(self.cache, ref, runtime))
            except OpError:  # noqa: PERF203 - a removed repo must not stop the others
                reports.append(ref.folder_name)
        return reports

    def _fail(self, error: OpError) -> None:
        if error.type is ErrorType.CACHE_NOT_FOUND and not self.cache.root.exists():  # no cache yet: empty
            self.phase, self.error = ScanPhase.READY, None
        else:
            self.phase, self.error = ScanPhase.FAILED, error
            self.entries.clear()
            self._watcher.reset()  # once it can be read again, everything counts as changed
        self.changed.publish(Changed())

    def put(self, reports: Iterable[Report]) -> None:
        """Add or replace reports and publish the change."""
        keys = set()
        for report in reports:
            key = report.ref.folder_name
            old = self.entries.get(key)
            # A verification holds for the bytes of one revision: a report of another one drops it.
            same = old is not None and old.model.hash == report.model.hash
            same = same and old is not None and old.model.size_bytes == report.model.size_bytes
            verified = old.verified if same and old else None
            entry = entry_of(report, verified, downloading=key in self._downloading)
            self.entries[key] = replace(entry, update=self._update_of(entry))
            keys.add(key)
        self.changed.publish(Changed(updated=frozenset(keys)))

    def drop(self, keys: Iterable[str]) -> None:
        """Remove repos that no longer exist."""
        removed = frozenset(key for key in keys if self.entries.pop(key, None) is not None)
        if removed:
            self.changed.publish(Changed(removed=removed))

    def set_downloading(self, names: Iterable[str]) -> None:
        """Set which models are being pulled, by their full names; an incomplete one of them is not broken."""
        before, self._downloading = self._downloading, frozenset(map(name_to_dir, names))
        changed = frozenset(key for key in before ^ self._downloading if key in self.entries)
        for key in changed:
            self.entries[key] = replace(self.entries[key], downloading=key in self._downloading)
        if changed:
            self.changed.publish(Changed(updated=changed))

    def set_updates(self, updates: Mapping[str, AvailableUpdate]) -> None:
        """Set the models that have an update, by key."""
        self._updates = updates
        changed = frozenset(k for k, entry in self.entries.items() if entry.update != self._update_of(entry))
        for key in changed:
            self.entries[key] = replace(self.entries[key], update=self._update_of(self.entries[key]))
        if changed:
            self.changed.publish(Changed(updated=changed))

    def _update_of(self, entry: Entry) -> AvailableUpdate | None:
        """Return the update of a model; None once another commit than the compared one is cached."""
        update = self._updates.get(entry.key)
        return update if update is not None and update.commit == entry.model.hash else None

    def set_verified(self, key: str, result: Verification) -> None:
        """Keep the result of a verification."""
        if key in self.entries:
            self.entries[key] = replace(self.entries[key], verified=Verified(result, self.clock()))
            self.changed.publish(Changed(updated=frozenset({key})))


def entry_of(report: Report, verified: Verified | None = None, *, downloading: bool = False) -> Entry:
    """Return the entry of a report."""
    org, _, short = report.model.name.rpartition("/")
    return Entry(report, printable(org), printable(short), verified, downloading)
