"""Runs push jobs with `ops.push`, for the queue and the push form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.push.push import preview_push, push
from mlxk_tui.ops.push.request import PushRequest
from mlxk_tui.transfers.jobs import Push

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub


def to_push_request(job: Push) -> PushRequest:
    """Convert a job to a request of `ops.push`; the repo is always private."""
    return PushRequest(Path(job.folder), job.repo, job.branch, job.message, job.create, delete=job.delete)


async def review(job: Push, *, hub: Hub) -> PushData:
    """Return the changes that a push would make, without uploading anything.

    Raises:
        OpError: the errors of `ops.push.push.preview_push`.
    """
    return await preview_push(to_push_request(job), hub=hub)


async def upload(job: Push, *, hub: Hub, on_event: OnEvent) -> str:
    """Push a folder and return the result as a sentence.

    Raises:
        OpError: the errors of `ops.push.push`.
    """
    result = await push(to_push_request(job), hub=hub, on_event=on_event)
    if result.no_changes:
        return f"{result.repo_id} is already up to date."
    return f"Pushed to {result.repo_id}: {result.message or 'done'}"
