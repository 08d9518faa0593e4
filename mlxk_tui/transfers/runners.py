"""The runners of the queue: they call the operations with the app's cache, hub and options."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.push.request import push_disabled
from mlxk_tui.transfers.jobs import Job, Pull, Push
from mlxk_tui.transfers.queue import Runner
from mlxk_tui.transfers.rate_limits import TransferRateLimits

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


def runners(
    cache: Cache,
    hub: Callable[[], Hub],
    *,
    via_hub: bool = False,
    push: bool = False,
    limits: TransferRateLimits | None = None,
) -> dict[type[Job], Runner]:
    """Return the runner of each type of job.

    Args:
        cache: the cache to download into.
        hub: returns the hub client.
        via_hub: whether huggingface_hub downloads files, instead of our downloader.
        push: whether push is enabled.
        limits: the rate limits of downloads; huggingface_hub ignores them.
    """
    limits = limits or TransferRateLimits()

    async def run_pull(job: Pull, on_event: OnEvent) -> str:
        from mlxk_tui.ops.contract.transfers import DownloadStatus
        from mlxk_tui.ops.download.options import DownloadOptions
        from mlxk_tui.ops.pull.pull import pull

        result = await pull(
            cache,
            job.spec,
            hub=hub(),
            via_hub=via_hub,
            suspect=job.doubted,
            options=DownloadOptions(rate_limits=limits.of(job)),
            on_event=on_event,
        )
        warnings = result.warnings if result.download_status is DownloadStatus.ALREADY_EXISTS else []
        return " ".join((result.message, *warnings))

    async def run_push(job: Push, on_event: OnEvent) -> str:
        if not push:
            raise push_disabled()
        from mlxk_tui.transfers.push_jobs import upload

        return await upload(job, hub=hub(), on_event=on_event)

    return {Pull: run_pull, Push: run_push}
