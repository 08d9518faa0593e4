"""The seam between the queue, the push form and `ops.push`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.push.push import push, review as review_push
from mlxk_tui.ops.push.terms import PushRequest
from mlxk_tui.transfers.jobs import Push

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


def request_of(job: Push) -> PushRequest:
    """Return a job as `ops.push` takes it; the repo is private, always."""
    return PushRequest(Path(job.folder), job.repo, job.branch, job.message, job.create, delete=job.delete)


async def review(job: Push, *, hub: Hub) -> PushData:
    """Return exactly what a push would change; nothing is uploaded.

    Raises:
        OpError: those of `ops.push.review`.
    """
    return await review_push(request_of(job), hub=hub)


async def upload(job: Push, *, hub: Hub, on_event: OnEvent) -> str:
    """Push and return what came of it, in a sentence.

    Raises:
        OpError: those of `ops.push.push`.
    """
    done = await push(request_of(job), hub=hub, on_event=on_event)
    if done.no_changes:
        return f"{done.repo_id} has every file already: nothing was pushed."
    return f"Pushed to {done.repo_id}: {done.message or 'done'}"
