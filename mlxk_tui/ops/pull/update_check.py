"""Compares cached models with the hub: one small request for each, and nothing is written.

The request is the repo's metadata reduced to commit and time. It works for gated repos, whose metadata is
public, and for private ones with a token. A HEAD of a file would need the file's name and access to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.cache.repo import COMMIT
from mlxk_tui.ops.cache.repo_scanner import read_repo
from mlxk_tui.ops.catalog.catalog import list_repos
from mlxk_tui.ops.contract.terms import UpdateReason, UpdateStatus
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.hub.errors import RequestContext, timeout_error
from mlxk_tui.ops.pull.plan import MAIN

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub

MAX_REQUESTS = 8
"""Maximum number of requests at once."""
_TOTAL_S = 120.0
"""Time for all requests, in seconds; what was not asked by then is unknown."""
_REASONS = {
    ErrorType.REPO_NOT_FOUND: UpdateReason.NOT_FOUND,
    ErrorType.ACCESS_DENIED: UpdateReason.ACCESS_DENIED,
    ErrorType.AUTH_ERROR: UpdateReason.ACCESS_DENIED,
    ErrorType.REVISION_NOT_FOUND: UpdateReason.REVISION_NOT_FOUND,
}
_HUB_REMEDIES = frozenset(
    {
        Remedy.CHECK_NETWORK,
        Remedy.CHECK_PROXY,
        Remedy.CHECK_CERTIFICATES,
        Remedy.CHANGE_PROXY,
        Remedy.INSTALL_EXTRA,
        Remedy.GO_ONLINE,
        Remedy.REPLACE_TOKEN,
        Remedy.TRY_LATER_OR_LOG_IN,
    }
)
"""Remedies of errors that concern every repo, not only the requested one."""


@dataclass(frozen=True)
class UpdateCheck:
    """A cached repo compared with the hub."""

    ref: RepoRef
    revision: str | None
    """The compared branch or tag; None if there is none."""
    commit: str | None
    """The cached commit, 40 hex digits."""
    status: UpdateStatus = UpdateStatus.UNKNOWN
    latest: str | None = None
    """The commit on the hub."""
    last_modified: str | None = None
    """Last change on the hub: ISO 8601, UTC."""
    reason: UpdateReason | None = None
    """Why the status is unknown."""
    message: str | None = None
    """The same as a sentence."""

    @property
    def spec(self) -> str:
        """What to pull for the update."""
        return self.ref.name if self.revision in {None, MAIN} else f"{self.ref.name}@{self.revision}"


@dataclass(frozen=True)
class UpdateChecks:
    """The comparison of several repos."""

    checks: tuple[UpdateCheck, ...]
    """Sorted by name."""
    hub_error: OpError | None = None
    """Why the hub could not be asked about all of them."""


async def check_updates(
    cache: Cache,
    specs: Collection[str] | None = None,
    *,
    hub: Hub,
    total_s: float = _TOTAL_S,
    on_event: OnEvent = ignore_event,
) -> UpdateChecks:
    """Compare cached models with the hub. An error about one model does not affect the others.

    Args:
        cache: the cache with the models.
        specs: `NAME[@REV]` of cached models, where a part of the name suffices; None for all models. Without
            REV, main is compared, or else the branch or tag of the selected snapshot.
        hub: the hub to ask. After an error that concerns the hub as a whole it is not asked again.
        total_s: time for all requests, in seconds.
        on_event: receives the number of compared models.

    Raises:
        OpError: a spec is invalid or not cached, or the cache cannot be read.
    """
    found = await asyncio.to_thread(_cached, cache, None if specs is None else list(specs))
    run = _Run(hub, on_event, len(found))
    tasks = [asyncio.create_task(run.check(item)) for item in found]
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=total_s)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    checks: list[UpdateCheck] = []
    for item, task in zip(found, tasks, strict=True):
        if task.cancelled():
            run.hub_error = run.hub_error or timeout_error(RequestContext(hub.endpoint))
            checks.append(_unknown(item, run.hub_error))
        else:
            checks.append(task.result())
    return UpdateChecks(tuple(checks), run.hub_error)


class _Run:
    """One comparison: the limit of requests, and the error that ends it."""

    def __init__(self, hub: Hub, on_event: OnEvent, total: int) -> None:
        self.hub_error: OpError | None = None
        self._hub = hub
        self._on_event = on_event
        self._limit = asyncio.Semaphore(MAX_REQUESTS)
        self._done = 0
        self._total = total

    async def check(self, item: UpdateCheck) -> UpdateCheck:
        """Return the result for a cached repo."""
        async with self._limit:
            self._report(item)
            result = await self._compare(item)
            self._done += 1
            self._report(item)
            return result

    def _report(self, item: UpdateCheck) -> None:
        self._on_event(Progress("check", item.ref.name, 0, 0, 0.0, self._done, self._total))

    async def _compare(self, item: UpdateCheck) -> UpdateCheck:
        if item.reason is not None or item.revision is None:
            return item
        if self.hub_error is not None:
            return _unknown(item, self.hub_error)
        try:
            info = await self._hub.info(item.ref.name, item.revision, brief=True)
        except OpError as error:
            if error.remedy in _HUB_REMEDIES:
                self.hub_error = error
            return _unknown(item, error)
        moment = info.last_modified
        return replace(
            item,
            status=UpdateStatus.CURRENT if info.commit == item.commit else UpdateStatus.AVAILABLE,
            latest=info.commit,
            last_modified=moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None,
        )


def _unknown(item: UpdateCheck, error: OpError) -> UpdateCheck:
    reason = _REASONS.get(error.type, UpdateReason.NETWORK_ERROR)
    if error.remedy is Remedy.GO_ONLINE:
        reason = UpdateReason.OFFLINE
    return replace(item, reason=reason, message=error.message)


def _cached(cache: Cache, specs: Sequence[str] | None) -> list[UpdateCheck]:
    """Return the repos to compare, sorted by name. Blocking."""
    if specs is not None:
        resolved = [cache.find(spec) for spec in specs]
        found = {(item.ref, item.spec.revision): None for item in resolved}
        checks = {_read(cache, ref, revision): None for ref, revision in found}
        return sorted(checks, key=lambda check: (check.ref.name.casefold(), check.revision or ""))
    checks = {}
    for ref in list_repos(cache):
        try:
            checks[_read(cache, ref, None)] = None
        except OpError as error:  # noqa: PERF203 - a repo that was removed meanwhile must not stop the others
            if error.type is not ErrorType.MODEL_NOT_FOUND:
                raise
    return list(checks)


def _read(cache: Cache, ref: RepoRef, revision: str | None) -> UpdateCheck:
    """Return what to compare of a cached repo, or why it cannot be compared."""
    if not is_valid_repo_name(ref.name):
        message = f"{ref.name} is not a name that the hub can have."
        return UpdateCheck(ref, None, None, reason=UpdateReason.NOT_FOUND, message=message)
    repo = read_repo(cache, ref)
    if revision is None:
        selected = repo.selected_hash
        named = sorted(name for name, commit in repo.refs.items() if commit == selected)
        chosen = MAIN if MAIN in repo.refs else next(iter(named), None)
        commit = repo.refs[chosen] if chosen is not None else selected
    else:
        chosen = revision if revision in repo.refs else None
        snapshot = None if chosen is not None else repo.find_snapshot(revision)
        commit = repo.refs[chosen] if chosen is not None else snapshot.hash if snapshot else None
    if chosen is not None and commit is not None and COMMIT.fullmatch(commit):
        return UpdateCheck(ref, chosen, commit)
    what = f"Its commit {commit[:12]}" if commit else "What is cached"
    message = f"{what} belongs to no branch or tag, so there is nothing to compare it with."
    return UpdateCheck(ref, None, commit, reason=UpdateReason.NO_REF, message=printable(message))
