"""What the app knows about the cache: one report a repo, filled by a scan and kept true by a watch.

State flows one way: the library's worker reads the cache, changes `entries`, and publishes what
changed; panes draw from `entries` and never read the cache themselves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
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
"""The organisation that goes without saying: most models for MLX come from there."""
_BATCH_SECONDS = 0.1
_CLOCK_GRAIN_NS = 2_000_000_000
"""Coarsest time stamp of a file system that is in use (FAT)."""
_FOLLOW = 16
"""Changed repos that are judged before the list is drawn again."""


class ModelState(Enum):
    """What the table says about a model in one cell: a glyph, a colour and a word."""

    GOOD = "good"
    ATTENTION = "attention"
    ARRIVING = "arriving"
    """Not whole, but a pull of this program is at work on it."""
    BAD = "bad"

    @property
    def glyph(self) -> str:
        """One cell that tells the state without colour."""
        return {
            ModelState.GOOD: "✓",
            ModelState.ATTENTION: "▲",
            ModelState.ARRIVING: "↓",
            ModelState.BAD: "✗",
        }[self]

    @property
    def token(self) -> str:
        """The theme's name for the colour of the state."""
        return "accent" if self is ModelState.ARRIVING else self.value

    @property
    def style(self) -> str:
        """The colour of the state as a style."""
        return f"${self.token}"

    @property
    def rank(self) -> int:
        """Sort order, worst first."""
        return {ModelState.BAD: 0, ModelState.ARRIVING: 1, ModelState.ATTENTION: 2, ModelState.GOOD: 3}[self]


class ScanPhase(Enum):
    """Where the first scan stands."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True)
class Verified:
    """What a checksum run of this session found."""

    result: Verification
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Entry:
    """One repo as the panes show it."""

    report: Report
    org: str
    """Safe to show; empty where the name has none."""
    short: str
    """The name without the organisation, safe to show."""
    verified: Verified | None = None
    arriving: bool = False
    """Whether a pull of this program is at work on it, or waits."""

    @property
    def key(self) -> str:
        """The folder name: unique, also where two names look the same."""
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
        """What is wrong, checksums first: they are the stronger proof."""
        return (self.verified.result.findings if self.verified else ()) + self.report.findings

    @cached_property
    def sound(self) -> bool:
        """Whether the files are whole, as far as is known."""
        broken = self.verified is not None and any(
            finding.severity is Severity.ERROR for finding in self.verified.result.findings
        )
        return self.model.health is Health.HEALTHY and not broken

    @cached_property
    def state(self) -> ModelState:
        """The verdict in one word."""
        if not self.sound:
            return ModelState.ARRIVING if self.arriving else ModelState.BAD
        tight = self.model.memory_fit in {MemoryFit.TIGHT, MemoryFit.TOO_LARGE}
        return ModelState.GOOD if self.model.runtime_compatible and not tight else ModelState.ATTENTION


@dataclass(frozen=True)
class Changed:
    """The library changed; keys of entries."""

    updated: frozenset[str] = frozenset()
    removed: frozenset[str] = frozenset()


class Library:
    """Reports of every repo in one cache.

    Args:
        cache: the cache to show.
        refresh_seconds: how often the cache is looked at for changes; 0 never.
        clock: seconds since the epoch.
        runtime: what this machine can run; looked at when left out.
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
        self._arriving: frozenset[str] = frozenset()
        self._watcher = Watcher(cache)
        self._given_runtime = runtime
        self._runtime = runtime

    @property
    def machine_bytes(self) -> int:
        """Memory that a model can use here, in bytes; 0 until the first scan has looked."""
        return self._runtime.memory_bytes if self._runtime else 0

    @property
    def without_gpu(self) -> bool:
        """Whether models run on the CPU alone here; False until the first scan has looked."""
        return self._runtime.without_gpu if self._runtime else False

    @property
    def total_bytes(self) -> int:
        """Bytes on disk of all repos."""
        return sum(entry.model.disk_bytes for entry in self.entries.values())

    def now(self) -> datetime:
        """Return the clock's time, for ages."""
        return datetime.fromtimestamp(self.clock(), timezone.utc)

    def count(self, *states: ModelState) -> int:
        """Return how many repos are in one of `states`."""
        return sum(entry.state in states for entry in self.entries.values())

    async def run(self) -> None:
        """Scan, then watch until cancelled. A cache that cannot be read is looked at again until it can."""
        await self._scan()
        while self.refresh_seconds > 0:
            await asyncio.sleep(self.refresh_seconds)
            await self.refresh()

    async def rescan(self) -> None:
        """Read everything again, the known reports staying until their new ones are there."""
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
            self._runtime = await asyncio.to_thread(self._look)
            async for report in scan(self.cache, runtime=self._runtime):
                batch.append(report)
                if time.monotonic() >= due:
                    self.put(batch)
                    batch = []
                    # Once the first models are on the screen: what the watch compares with from now on.
                    baseline = baseline or asyncio.create_task(asyncio.to_thread(self._watcher.poll))
                    await asyncio.sleep(0)
                    due = time.monotonic() + _BATCH_SECONDS
            changes = await (baseline or asyncio.to_thread(self._watcher.poll))
            self.phase = ScanPhase.READY
            self.put(batch)
        except OpError as error:
            self._fail(error)
            return
        # A repo may have changed after it was judged and before the baseline: judge those again.
        touched = self._watcher.touched_since(began_ns - _CLOCK_GRAIN_NS)
        await self._follow(
            replace(changes, changed=tuple(r for r in changes.changed if r.path.name in touched))
        )

    def _look(self) -> Runtime:
        return self._given_runtime or Runtime.here()

    async def refresh(self) -> None:
        """Look for changes once and read what changed."""
        try:
            changes = await asyncio.to_thread(self._watcher.poll)
        except OpError as error:
            self._fail(error)
            return
        if self.phase is ScanPhase.FAILED:
            self.phase, self.error = ScanPhase.READY, None
            self.changed.publish(Changed())
        if changes:
            self._runtime = await asyncio.to_thread(self._look)
        await self._follow(changes)

    async def _follow(self, changes: Changes) -> None:
        self.drop(changes.removed)
        runtime = self._runtime
        if runtime is None:
            return
        for start in range(0, len(changes.changed), _FOLLOW):
            refs = changes.changed[start : start + _FOLLOW]
            reports = await asyncio.to_thread(self._inspect, refs, runtime)
            self.put([report for report in reports if isinstance(report, Report)])
            self.drop(report for report in reports if isinstance(report, str))

    def _inspect(self, refs: Sequence[RepoRef], runtime: Runtime) -> list[Report | str]:
        """Return a report for each repo, or its folder name where it vanished meanwhile."""
        from mlxk_tui.ops.health.verdict import inspect

        reports: list[Report | str] = []
        for ref in refs:
            try:
                reports.append(inspect(self.cache, ref, runtime))
            except OpError:  # noqa: PERF203 - a repo that vanished must not stop the others
                reports.append(ref.folder_name)
        return reports

    def _fail(self, error: OpError) -> None:
        if error.type is ErrorType.CACHE_NOT_FOUND and not self.cache.root.exists():  # no cache yet: empty
            self.phase, self.error = ScanPhase.READY, None
        else:
            self.phase, self.error = ScanPhase.FAILED, error
            self.entries.clear()
            self._watcher.reset()  # everything is news once it can be read again
        self.changed.publish(Changed())

    def put(self, reports: Iterable[Report]) -> None:
        """Take reports in and publish them."""
        keys = set()
        for report in reports:
            key = report.ref.folder_name
            old = self.entries.get(key)
            # A checksum result speaks about one revision's bytes: a new report of another drops it.
            same = old is not None and old.model.hash == report.model.hash
            same = same and old is not None and old.model.size_bytes == report.model.size_bytes
            verified = old.verified if same and old else None
            self.entries[key] = entry_of(report, verified, arriving=key in self._arriving)
            keys.add(key)
        self.changed.publish(Changed(updated=frozenset(keys)))

    def drop(self, keys: Iterable[str]) -> None:
        """Forget repos that are gone."""
        gone = frozenset(key for key in keys if self.entries.pop(key, None) is not None)
        if gone:
            self.changed.publish(Changed(removed=gone))

    def set_arriving(self, names: Iterable[str]) -> None:
        """Know which models are being pulled, by their full names: until then they are not called broken."""
        before, self._arriving = self._arriving, frozenset(map(name_to_dir, names))
        changed = frozenset(key for key in before ^ self._arriving if key in self.entries)
        for key in changed:
            self.entries[key] = replace(self.entries[key], arriving=key in self._arriving)
        if changed:
            self.changed.publish(Changed(updated=changed))

    def set_verified(self, key: str, result: Verification) -> None:
        """Keep what a checksum run found."""
        if key in self.entries:
            self.entries[key] = replace(self.entries[key], verified=Verified(result, self.clock()))
            self.changed.publish(Changed(updated=frozenset({key})))


def entry_of(report: Report, verified: Verified | None = None, *, arriving: bool = False) -> Entry:
    """Return the entry of a report."""
    org, _, short = report.model.name.rpartition("/")
    return Entry(report, printable(org), printable(short), verified, arriving)
