"""Confirms deletions: asks at a terminal, and requires the exact name everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.results import PruneData, RmData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.ops.remove import prune as prune_operation, remove as remove_operation

if TYPE_CHECKING:
    from mlxk_tui.ops.remove.remove import RemovePlan
    from mlxk_tui_headless.session import CommandSession


def remove(session: CommandSession, spec: str, *, force: bool) -> RmData:
    """Remove the model or revision that `spec` names, after confirmation.

    Raises:
        OpError: `confirmation_required` if the name is not exact and there is no terminal to ask at;
            `cancelled` if the user says no; and the errors of the operation.
    """
    try:
        plan = session.wait(remove_operation.plan_remove(session.cache, spec))
    except OpError as error:
        if error.type is ErrorType.AMBIGUOUS_MATCH and error.data is None:
            error.data = _nothing_removed(spec, "ambiguous", error.message, matches=list(error.matches))
        raise
    session.interrupts.raise_on_signal()  # a signal during planning stops the removal
    # With held locks the operation fails anyway and names them: do not ask first.
    if not force and session.interactive and not plan.held_locks:
        if not session.confirm(f"{_describe(plan)} Remove it?"):
            raise OpError(ErrorType.CANCELLED, "Nothing was removed.")
    elif not force and not session.interactive and not plan.exact:
        raise _confirmation_required(plan)
    with session.progress() as on_event:
        return session.wait(remove_operation.remove(session.cache, plan, force=force, on_event=on_event))


def prune(session: CommandSession, *, dry_run: bool, force: bool) -> PruneData:
    """Remove unused data from the cache, after confirmation.

    Raises:
        OpError: `confirmation_required` if there is no terminal to ask at; `cancelled` if the user says no;
            and the errors of the operation.
    """
    if dry_run:
        return session.wait(prune_operation.plan_prune(session.cache))
    if not force:
        plan = session.wait(prune_operation.plan_prune(session.cache))
        session.interrupts.raise_on_signal()
        if not session.interactive:
            raise OpError(
                ErrorType.CONFIRMATION_REQUIRED,
                f"{plan.message} Nothing was removed, because confirmation needs a terminal: "
                "add -f, or --dry-run to see the plan.",
                data=plan,
            )
        if not (plan.revisions or plan.blobs or plan.incomplete):
            return plan
        if not session.confirm(f"{plan.message} Remove it?"):
            raise OpError(ErrorType.CANCELLED, "Nothing was removed.", data=plan)
    with session.progress() as on_event:
        return session.wait(prune_operation.prune(session.cache, on_event=on_event))


def _describe(plan: RemovePlan) -> str:
    """Return a sentence: the target of a removal, its size and the bytes it frees."""
    target = plan.ref.name if plan.revision is None else f"{plan.ref.name}@{plan.revision[:12]}"
    parts = [plural(plan.files, "file")]
    if plan.revision is None and plan.revisions != 1:
        parts.insert(0, plural(plan.revisions, "revision"))
    return f"{target}: {', '.join(parts)}; frees {format_size(plan.freed_bytes)}."


def _confirmation_required(plan: RemovePlan) -> OpError:
    message = (
        f"{_describe(plan)} Nothing was removed, because the name is not exact: "
        f"give '{plan.ref.name}' or add -f."
    )
    return OpError(
        ErrorType.CONFIRMATION_REQUIRED,
        message,
        matches=[plan.ref.name],
        data=_nothing_removed(
            plan.ref.name,
            "requires_confirmation",
            message,
            revision=plan.revision,
            freed_bytes=plan.freed_bytes,
            matches=[plan.ref.name],
        ),
    )


def _nothing_removed(
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
