"""Updates cached models to the hub's commits: compares all of them, then pulls those that have another one.

The old revisions stay in the cache until they are pruned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from glob import escape

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.terms import UpdateStatus
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullData
from mlxk_tui.ops.contract.updates import ModelUpdate, UpdateData, UpdateSummary
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, ignore_event
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.health.integrity import left_out_files
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.batch import PullBatch
from mlxk_tui.ops.pull.local_files import read_cached
from mlxk_tui.ops.pull.patterns import FilePatterns
from mlxk_tui.ops.pull.update_check import UpdateCheck, UpdateChecks, check_updates


class UpdateBatch:
    """Updates of several models. Call `run` once; `data` is available at any time."""

    def __init__(
        self,
        cache: Cache,
        specs: Collection[str] | None = None,
        *,
        hub: Hub,
        dry_run: bool = False,
        via_hub: bool = False,
        options: DownloadOptions | None = None,
        on_event: OnEvent = ignore_event,
    ) -> None:
        """Create the batch.

        Args:
            cache: the cache with the models.
            specs: `NAME[@REV]` of cached models; None for all. See `check_updates`.
            hub: the hub to ask and to pull from.
            dry_run: compare and plan only; nothing is written.
            via_hub: let huggingface_hub transfer the files (Xet).
            options: limits and time-outs of the downloader.
            on_event: receives progress: `check`, then that of the pulls over all models, in threads.
        """
        self._cache = cache
        self._specs = specs
        self._hub = hub
        self._dry_run = dry_run
        self._via_hub = via_hub
        self._options = options
        self._on_event = on_event
        self._checks = UpdateChecks(())
        self.compared = False
        """Whether the models have been compared with the hub."""
        self._pulls: PullBatch | None = None

    async def run(self) -> UpdateData:
        """Compare the models, plan all updates, then run them. A failed one does not stop the others.

        Finished updates stay when the task is cancelled, and the same call resumes.

        Raises:
            OpError: the errors of `check_updates`; with an UpdateData as `data`: `network_error` or
                `access_denied` if the hub could not be asked, `disk_full` before the first byte if there is
                no space for all updates, and the first error of a failed update.
        """
        self._checks = await check_updates(self._cache, self._specs, hub=self._hub, on_event=self._on_event)
        self.compared = True
        if self._checks.hub_error is not None:
            raise self._with_data(self._checks.hub_error.as_access_denied())
        pending = [check for check in self._checks.checks if check.status is UpdateStatus.AVAILABLE]
        if not pending:
            return self.data()
        patterns = await asyncio.to_thread(_patterns, self._cache, pending)
        self._pulls = pulls = PullBatch(
            self._cache,
            [check.spec for check in pending],
            hub=self._hub,
            dry_run=self._dry_run,
            via_hub=self._via_hub,
            patterns=patterns,
            options=self._options,
            on_event=self._on_event,
        )
        try:
            await pulls.run()
        except OpError as error:
            if not pulls.errors:  # there is no space for all of them
                raise self._with_data(error) from None
        failures = [found for check in pending if (found := self._error(check, pulls)) is not None]
        if failures and not self._dry_run:
            raise self._with_data(_first_of(failures))
        return self.data()

    def data(self) -> UpdateData:
        """Return the results so far."""
        pulls = self._pulls
        models = [self._model(check, pulls) for check in self._checks.checks]
        counts = {status: sum(model.status is status for model in models) for status in UpdateStatus}
        needed = sum(model.bytes_to_download or 0 for model in models)
        downloaded = sum(model.bytes_downloaded for model in models)
        lacking = pulls.lacks_space if pulls is not None and self._dry_run else None
        free = [plan.disk_free for plan in pulls.plans.values()] if pulls is not None else []
        message = _message(counts, needed, downloaded)
        return UpdateData(
            dry_run=self._dry_run,
            models=models,
            summary=UpdateSummary(
                total=len(models), **{status.value: count for status, count in counts.items()}
            ),
            bytes_to_download=needed,
            bytes_downloaded=downloaded,
            disk_free_bytes=next(iter(free), None),
            message=f"{message} {lacking.message}" if lacking is not None else message,
        )

    def _model(self, check: UpdateCheck, pulls: PullBatch | None) -> ModelUpdate:
        plan = pulls.plans.get(check.spec) if pulls is not None else None
        result = pulls.results.get(check.spec) if pulls is not None else None
        error = self._error(check, pulls) if pulls is not None else None
        status = check.status
        if error is not None:
            status = UpdateStatus.AVAILABLE if self._dry_run else UpdateStatus.FAILED
        elif result is not None and result.download_status in _PULLED:
            status = UpdateStatus.UPDATED if result.commit_hash != check.commit else UpdateStatus.CURRENT
        received = 0 if result is None or self._dry_run else result.bytes_downloaded
        return ModelUpdate(
            name=check.ref.name,
            revision=check.revision,
            status=status,
            commit_hash=check.commit,
            latest_hash=plan.commit if plan is not None else check.latest,
            last_modified=check.last_modified,
            bytes_to_download=plan.bytes_to_fetch if plan is not None else None,
            bytes_downloaded=received,
            reason=check.reason,
            error_type=error.type if error is not None else None,
            message=error.message if error is not None else check.message,
        )

    def _error(self, check: UpdateCheck, pulls: PullBatch) -> OpError | None:
        """Return why an update failed; None if it did not."""
        error = pulls.errors.get(check.spec)
        result = pulls.results.get(check.spec)
        if error is None and result is not None and _found_no_hub(check, result):
            error = OpError(ErrorType.NETWORK_ERROR, result.warnings[0], remedy=Remedy.CHECK_NETWORK)
        return error

    def _with_data(self, error: OpError) -> OpError:
        copy = error.as_type(error.type)
        copy.data = self.data()
        return copy


_PULLED = frozenset({DownloadStatus.SUCCESS, DownloadStatus.ALREADY_EXISTS})


def _found_no_hub(check: UpdateCheck, result: PullData) -> bool:
    """Return whether a pull is content with the cached commit, because the hub could not be reached."""
    cached = result.download_status is DownloadStatus.ALREADY_EXISTS and result.commit_hash == check.commit
    return cached and bool(result.warnings)


def _patterns(cache: Cache, checks: Collection[UpdateCheck]) -> dict[str, FilePatterns]:
    """Return patterns, by spec, that leave out the files that partial pulls left out. Blocking."""
    found: dict[str, FilePatterns] = {}
    for check in checks:
        repo = read_cached(cache, check.ref.name)
        snapshot = repo.snapshots.get(check.commit or "") if repo is not None else None
        if repo is not None and snapshot is not None and (names := left_out_files(repo, snapshot)):
            found[check.spec] = FilePatterns(exclude=tuple(escape(name) for name in sorted(names)))
    return found


def _first_of(failures: Collection[OpError]) -> OpError:
    """Return the error of a batch: the first failure, with their number if there are several."""
    first = next(iter(failures))
    if len(failures) == 1:
        return first
    return first.as_type(first.type, f"{len(failures):,} updates failed. {first.message}")


def _message(counts: dict[UpdateStatus, int], needed: int, downloaded: int) -> str:
    parts: list[str] = []
    if updated := counts[UpdateStatus.UPDATED]:
        parts.append(f"{plural(updated, 'model')} updated ({format_size(downloaded)} downloaded)")
    if available := counts[UpdateStatus.AVAILABLE]:
        size = f" ({format_size(needed)} to download)" if needed else ""
        parts.append(f"{plural(available, 'update')} available{size if not updated else ''}")
    if failed := counts[UpdateStatus.FAILED]:
        parts.append(f"{failed:,} failed")
    if current := counts[UpdateStatus.CURRENT]:
        parts.append(f"{current:,} up to date")
    if unknown := counts[UpdateStatus.UNKNOWN]:
        parts.append(f"{unknown:,} unknown")
    return f"{', '.join(parts) or 'No models to update'}."
