"""What does the jobs of the queue: the operations, with what the app knows filled in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.push.terms import push_disabled
from mlxk_tui.transfers.jobs import Job, Pull, Push
from mlxk_tui.transfers.queue import Runner

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


def runners(
    cache: Cache, hub: Callable[[], Hub], *, via_hub: bool = False, push: bool = False
) -> dict[type[Job], Runner]:
    """Return what does each kind of job.

    Args:
        cache: where models go.
        hub: returns the hub that is asked.
        via_hub: let huggingface_hub move the bytes of pulls.
        push: whether push may be used.
    """

    async def run_pull(job: Pull, on_event: OnEvent) -> str:
        from mlxk_tui.ops.contract.transfers import DownloadStatus
        from mlxk_tui.ops.pull.pull import pull

        done = await pull(cache, job.spec, hub=hub(), via_hub=via_hub, doubted=job.doubted, on_event=on_event)
        unchecked = done.warnings if done.download_status is DownloadStatus.ALREADY_EXISTS else []
        return " ".join((done.message, *unchecked))

    async def run_push(job: Push, on_event: OnEvent) -> str:
        if not push:
            raise push_disabled()
        from mlxk_tui.transfers.pushing import upload

        return await upload(job, hub=hub(), on_event=on_event)

    return {Pull: run_pull, Push: run_push}
