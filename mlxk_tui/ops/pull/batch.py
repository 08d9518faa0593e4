"""Pulls several models, one after the other.

All pulls are planned before the first byte, so that it is known whether there is space for all of them. A
model that cannot be pulled does not stop the others.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.contract.transfers import DownloadStatus, PullBatchData, PullData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.events import OnEvent, Progress, ignore_event
from mlxk_tui.ops.core.remedies import ErrorFacts, Remedy
from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.hub.hub import Hub
from mlxk_tui.ops.pull.patterns import FilePatterns
from mlxk_tui.ops.pull.plan import PullPlan, plan_pull
from mlxk_tui.ops.pull.pull import ReceivedBytes, pull
from mlxk_tui.ops.pull.results import blob_bytes, failed_pull

_PLANS_AT_ONCE = 4
_ORDER = (
    DownloadStatus.ALREADY_EXISTS,
    DownloadStatus.PLANNED,
    DownloadStatus.SUCCESS,
    DownloadStatus.ACCESS_DENIED,
    DownloadStatus.FAILED,
    DownloadStatus.CANCELLED,
)
"""The status of a batch is the last one of these that one of its models has."""
_GOOD = frozenset(_ORDER[:3])


class PullBatch:
    """Pulls of several models. Call `run` once; `data` is available at any time."""

    def __init__(
        self,
        cache: Cache,
        specs: Sequence[str],
        *,
        hub: Hub,
        dry_run: bool = False,
        via_hub: bool = False,
        verify: bool = False,
        patterns: FilePatterns | Mapping[str, FilePatterns] | None = None,
        options: DownloadOptions | None = None,
        on_event: OnEvent = ignore_event,
    ) -> None:
        """Create the batch; the arguments are those of `pull`.

        Args:
            cache: the cache to pull into.
            specs: `NAME[@REV]` of each model; one that is given twice is pulled once.
            hub: the hub to pull from.
            dry_run: plan only; nothing is written.
            via_hub: let huggingface_hub transfer the files.
            verify: hash all cached files.
            patterns: download only files that match, for all models or by spec.
            options: limits and time-outs of the downloader.
            on_event: receives progress over all models, in threads.
        """
        self._cache = cache
        self._specs = tuple(dict.fromkeys(specs))
        self._hub = hub
        self._dry_run = dry_run
        self._via_hub = via_hub
        self._verify = verify
        self._patterns = patterns
        self._options = options
        self._on_event = on_event
        self.plans: dict[str, PullPlan] = {}
        """Plans by spec."""
        self.errors: dict[str, OpError] = {}
        """Errors of the models that were not pulled, by spec."""
        self.results: dict[str, PullData] = {}
        """Results of the models that have ended, by spec."""

    async def run(self) -> PullBatchData:
        """Plan all pulls, then run them.

        Raises:
            OpError: `disk_full` before the first byte if there is no space for all of them; else the type of
                the first error, after all others have ended. A PullBatchData is the error's `data`.
        """
        await self._plan()
        lacking = self.lacks_space
        if lacking is not None and not self._dry_run:
            lacking.data = self.data(DownloadStatus.FAILED, "Not started: there is no space for all models.")
            raise lacking
        total = sum(blob_bytes(plan.missing) for plan in self.plans.values())
        before = 0
        for spec in self._specs:
            plan = self.plans.get(spec)
            if spec not in self.errors:
                await self._pull(spec, plan, before, total)
            before += blob_bytes(plan.missing) if plan is not None else 0
        data = self.data(DownloadStatus.FAILED, "")
        if self.errors:
            first = next(self.errors[spec] for spec in self._specs if spec in self.errors)
            failure = first.as_type(first.type, data.message)
            failure.data = data
            raise failure
        return data

    def data(self, status: DownloadStatus, message: str) -> PullBatchData:
        """Return the results so far; models that have not ended get a status and a message."""
        models = [
            data
            for spec in self._specs
            if (data := self.results.get(spec) or failed_pull(spec, self.plans.get(spec), status, message))
        ]
        free = next((plan.disk_free for plan in self.plans.values()), None)
        statuses = [model.download_status for model in models]
        return PullBatchData(
            model=" ".join(self._specs),
            download_status=max(statuses, key=_ORDER.index, default=DownloadStatus.FAILED),
            models=models,
            count=len(self._specs),
            failed_count=len(self._specs) - sum(status in _GOOD for status in statuses),
            bytes_downloaded=sum(model.bytes_downloaded for model in models),
            disk_free_bytes=free,
            message=self._summary(models),
        )

    async def _plan(self) -> None:
        limit = asyncio.Semaphore(_PLANS_AT_ONCE)

        async def plan(spec: str) -> None:
            async with limit:
                try:
                    self.plans[spec] = await plan_pull(
                        self._cache,
                        spec,
                        hub=self._hub,
                        verify=self._verify,
                        patterns=self._patterns_of(spec),
                        on_event=self._on_event,
                    )
                except OpError as error:
                    if error.type is not ErrorType.NETWORK_ERROR:  # `pull` may use the cached model
                        self._fail(spec, error)

        await asyncio.gather(*(plan(spec) for spec in self._specs))

    @property
    def lacks_space(self) -> OpError | None:
        """The error if there is no space for all models together, else None."""
        blobs = {(plan.repo, plan.commit): plan.bytes_to_fetch for plan in self.plans.values()}
        needed = sum(blobs.values())
        free = min((p.disk_free for p in self.plans.values() if p.disk_free is not None), default=None)
        if free is None or needed <= free:
            return None
        return OpError(
            ErrorType.DISK_FULL,
            f"{plural(len(self.plans), 'model')} need {format_size(needed)} more, but the cache's disk has "
            f"only {format_size(free)} free.",
            remedy=Remedy.FREE_SPACE_OR_MOVE_CACHE,
            facts=ErrorFacts(needed_bytes=needed, available_bytes=free),
        )

    def _patterns_of(self, spec: str) -> FilePatterns | None:
        return self._patterns.get(spec) if isinstance(self._patterns, Mapping) else self._patterns

    async def _pull(self, spec: str, plan: PullPlan | None, before: int, total: int) -> None:
        def shift(event: Progress) -> None:
            done = before + event.bytes_done
            self._on_event(dataclasses.replace(event, bytes_done=done, bytes_total=max(total, done)))

        received = ReceivedBytes(shift)
        try:
            self.results[spec] = await pull(
                self._cache,
                spec,
                hub=self._hub,
                dry_run=self._dry_run,
                via_hub=self._via_hub,
                verify=self._verify,
                patterns=self._patterns_of(spec),
                plan=plan,
                options=self._options,
                on_event=received.on_event,
            )
        except OpError as error:
            self._fail(spec, error)
        except asyncio.CancelledError:
            message = "Stopped by the user."
            stopped = failed_pull(
                spec, plan, DownloadStatus.CANCELLED, message, downloaded=received.total_bytes
            )
            if stopped is not None:
                self.results[spec] = stopped
            raise

    def _fail(self, spec: str, error: OpError) -> None:
        self.errors[spec] = error
        denied = error.type is ErrorType.ACCESS_DENIED
        status = DownloadStatus.ACCESS_DENIED if denied else DownloadStatus.FAILED
        data = (
            error.data
            if isinstance(error.data, PullData)
            else failed_pull(spec, self.plans.get(spec), status, error.message)
        )
        if data is not None:
            self.results[spec] = data

    def _summary(self, models: Sequence[PullData]) -> str:
        if self.errors:
            reasons = " ".join(f"{spec}: {error.message}" for spec, error in self.errors.items())
            return f"{len(self.errors)} of {plural(len(self._specs), 'model')} not pulled. {reasons}"
        if self._dry_run:
            fetch = sum(plan.bytes_to_fetch for plan in self.plans.values())
            lacking = self.lacks_space
            more = f" {lacking.message}" if lacking is not None else ""
            return f"Would download {format_size(fetch)} for {plural(len(models), 'model')}.{more}"
        new = sum(model.download_status is DownloadStatus.SUCCESS for model in models)
        complete = sum(model.download_status is DownloadStatus.ALREADY_EXISTS for model in models)
        return f"{plural(new, 'model')} pulled, {complete} already complete."
