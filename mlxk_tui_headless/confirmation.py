"""Decides whether a deletion may happen: asks at a terminal, wants the exact name everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.results import PruneData, RmData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import plural, size
from mlxk_tui.ops.remove import prune as prune_operation, remove as remove_operation

if TYPE_CHECKING:
    from mlxk_tui.ops.remove.remove import RemovePlan
    from mlxk_tui_headless.session import CommandSession


def remove(session: CommandSession, spec: str, *, force: bool) -> RmData:
    """Remove what `spec` stands for, if it may go.

    Raises:
        OpError: `confirmation_required` where nobody can be asked and the name is not the full one,
            `cancelled` when the answer is no, and those of the operation.
    """
    try:
        plan = session.wait(remove_operation.plan_remove(session.cache, spec))
    except OpError as error:
        if error.type is ErrorType.AMBIGUOUS_MATCH and error.data is None:
            error.data = _undone(spec, "ambiguous", error.message, matches=list(error.matches))
        raise
    session.interrupts.begin()  # a signal that came when the plan was made stops what it would lead to
    # Held locks end it in the operation, with the locks' names: a question first would be in vain.
    if not force and session.interactive and not plan.held_locks:
        if not session.confirm(f"{_describe(plan)} Remove it?"):
            raise OpError(ErrorType.CANCELLED, "Nothing was removed.")
    elif not force and not session.interactive and not plan.exact:
        raise _confirmation_required(plan)
    with session.progress() as on_event:
        return session.wait(remove_operation.remove(session.cache, plan, force=force, on_event=on_event))


def prune(session: CommandSession, *, dry_run: bool, force: bool) -> PruneData:
    """Remove what nothing needs any more, if it may go.

    Raises:
        OpError: `confirmation_required` where nobody can be asked, `cancelled` when the answer is no,
            and those of the operation.
    """
    if dry_run:
        return session.wait(prune_operation.plan_prune(session.cache))
    if not force:
        plan = session.wait(prune_operation.plan_prune(session.cache))
        session.interrupts.begin()
        if not session.interactive:
            raise OpError(
                ErrorType.CONFIRMATION_REQUIRED,
                f"{plan.message} Nobody can be asked here, so nothing was removed: add -f, "
                "or --dry-run to see it all.",
                data=plan,
            )
        if not (plan.revisions or plan.blobs or plan.incomplete):
            return plan
        if not session.confirm(f"{plan.message} Remove it?"):
            raise OpError(ErrorType.CANCELLED, "Nothing was removed.", data=plan)
    with session.progress() as on_event:
        return session.wait(prune_operation.prune(session.cache, on_event=on_event))


def _describe(plan: RemovePlan) -> str:
    """Return what goes and how many bytes that frees, one sentence."""
    what = plan.ref.name if plan.revision is None else f"{plan.ref.name}@{plan.revision[:12]}"
    parts = [plural(plan.files, "file")]
    if plan.revision is None and plan.revisions != 1:
        parts.insert(0, plural(plan.revisions, "revision"))
    return f"{what}: {', '.join(parts)}; frees {size(plan.freed_bytes)}."


def _confirmation_required(plan: RemovePlan) -> OpError:
    message = (
        f"{_describe(plan)} Nothing was removed, because that is not the full name: "
        f"give '{plan.ref.name}' or add -f."
    )
    return OpError(
        ErrorType.CONFIRMATION_REQUIRED,
        message,
        matches=[plan.ref.name],
        data=_undone(
            plan.ref.name,
            "requires_confirmation",
            message,
            revision=plan.revision,
            freed_bytes=plan.freed_bytes,
            matches=[plan.ref.name],
        ),
    )


def _undone(
    model: str,
    action: str,
    message: str,
    *,
    revision: str | None = None,
    freed_bytes: int = 0,
    matches: list[str],
) -> RmData:
    return RmData.model_validate(
        {
            "model": model,
            "revision": revision,
            "action": action,
            "message": message,
            "freed_bytes": freed_bytes,
            "lock_files_cleaned": 0,
            "matches": matches,
            "lock_files": [],
        }
    )
