"""Actions on models, for all screens: verify, clone, delete, prune, copy."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.screen import Screen

from mlxk_tui.ops.contract.terms import Severity
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.events import OnEvent, Progress
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.services.library import Entry, ScanPhase
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.messages import ChatRequested
from mlxk_tui.ui.shell.tasks import DIALOG_GROUP
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.text import sentence

Host = Screen[Any]


def notify_error(host: Host, error: OpError) -> None:
    """Show an error as a notification."""
    host.notify(error_text(error), severity="error", timeout=12, markup=False)


def models_label(entries: Sequence[Entry]) -> str:
    """Return the model's name, or the number of several models."""
    return entries[0].short if len(entries) == 1 else plural(len(entries), "model")


def run_dialog(host: Host, dialog: Coroutine[Any, Any, None]) -> None:
    """Run an action that shows a dialog, unless another one is running.

    It runs in a worker of the app that nothing cancels: in Textual 8.2.8 a worker that is cancelled while
    it pushes a screen (its own screen was popped, or another worker of its group started) ends the app.
    """
    app = host.app
    if any(worker.group == DIALOG_GROUP and not worker.is_finished for worker in app.workers):
        dialog.close()
        return
    app.run_worker(dialog, group=DIALOG_GROUP, exit_on_error=False)


def _screen_changed(host: Host) -> bool:
    """Return whether another screen was opened before the dialog was ready."""
    return host.app.screen is not host


# -- verify ----------------------------------------------------------------------------------------


def verify_models(host: Host, context: Context, entries: Sequence[Entry]) -> None:
    """Verify the checksums of models, one after the other; those that are being verified are left out."""
    new = [entry for entry in entries if not context.tasks.works_on(_verify_subject(entry))]
    if entries and not new:
        host.notify(f"Already verifying {models_label(entries)}.", markup=False, timeout=4)
    if new:
        context.tasks.start(
            f"Verifying {models_label(new)}",
            lambda on_event: _verify(context, new, on_event),
            about=[_verify_subject(entry) for entry in new],
        )


def _verify_subject(entry: Entry) -> str:
    return f"verify {entry.key}"


async def _verify(context: Context, entries: list[Entry], on_event: OnEvent) -> str:
    from mlxk_tui.ops.health.verify import verify_ref

    total = sum(entry.model.size_bytes for entry in entries)
    done, mismatched, checked = 0, 0, 0
    problems: list[str] = []
    for entry in entries:
        start = done

        def report(event: Progress, start: int = start) -> None:
            on_event(replace(event, bytes_done=start + event.bytes_done, bytes_total=max(total, 1)))

        try:
            result = await verify_ref(context.library.cache, entry.report.ref, on_event=report)
        except OpError as error:
            problems.append(error_text(error))
            continue
        finally:
            done += entry.model.size_bytes
        checked += result.checksums.files
        mismatched += bool(result.checksums.mismatched)
        context.library.set_verified(entry.key, result)
    if problems and len(entries) == 1:
        return problems[0]
    label = models_label(entries)
    if mismatched:
        where = "" if len(entries) == 1 else f" in {plural(mismatched, 'model')}"
        return f"{label}: checksum mismatch{where}. See Health for details."
    skipped = f"; {plural(len(problems), 'model')} could not be read" if problems else ""
    if not checked:
        return f"{label}: no files with checksums{skipped}."
    verified = f"{label}: {plural(checked, 'file')} verified, all checksums match"
    known = [context.library.entries.get(entry.key, entry) for entry in entries]
    broken = [entry for entry in known if not entry.intact]
    if not broken:
        return f"{verified}{skipped}."
    if len(entries) > 1:
        still = f"{plural(len(broken), 'model')} {'is' if len(broken) == 1 else 'are'} still broken"
        return f"{verified}, but {still}{skipped}. See Health for details."
    cause = next((f.message for f in broken[0].findings if f.severity is Severity.ERROR), "see Health.")
    return f"{verified}, but the model is still broken: {sentence(cause)}"


# -- copy ------------------------------------------------------------------------------------------


def copy_text(host: Host, text: str, what: str) -> None:
    """Copy text and notify the user; `what` names a line of it, such as `Path`."""
    host.app.copy_to_clipboard(text)
    count = text.count("\n") + 1
    message = f"{what} copied: {printable(text)}" if count == 1 else f"{plural(count, what.lower())} copied."
    host.notify(message, markup=False, timeout=3)


def copy_name(host: Host, entries: Sequence[Entry]) -> None:
    """Copy the names of models, one per line."""
    copy_text(host, "\n".join(entry.report.ref.name for entry in entries), "Name")


def copy_path(host: Host, entries: Sequence[Entry]) -> None:
    """Copy the folders that other programs can load, one per line."""
    copy_text(host, "\n".join(str(_folder(entry)) for entry in entries), "Path")


def _folder(entry: Entry) -> Path:
    """Return the folder of the selected snapshot, or of the repo if it has none."""
    path = entry.report.ref.path
    snapshot = path / "snapshots" / entry.model.hash if entry.model.hash else path
    return snapshot if snapshot.is_dir() else path


# -- chat ------------------------------------------------------------------------------------------


def start_chat(host: Host, entry: Entry) -> None:
    """Open the Chat pane with a new chat."""
    host.post_message(ChatRequested(entry.report.ref.name))


# -- delete ----------------------------------------------------------------------------------------


async def delete_models(host: Host, context: Context, entries: Sequence[Entry]) -> None:
    """Delete models after a confirmation. Run it with `run_dialog`."""
    from mlxk_tui.ops.remove.remove import RemovePlan, plan_remove_ref, remove
    from mlxk_tui.ui.inspector.delete_dialog import DeleteDialog

    plans: list[tuple[Entry, RemovePlan]] = []
    for entry in entries:
        try:
            plans.append((entry, await plan_remove_ref(context.library.cache, entry.report.ref)))
        except OpError as error:  # noqa: PERF203 - one model must not stop the others
            notify_error(host, error)
    if not plans or _screen_changed(host) or not await host.app.push_screen_wait(DeleteDialog(plans)):
        return

    async def work(on_event: OnEvent) -> str:
        freed = 0
        total = sum(plan.freed_bytes for _, plan in plans)
        failures: list[OpError] = []
        for entry, plan in plans:

            def report(event: Progress, freed: int = freed) -> None:
                on_event(replace(event, bytes_done=freed + event.bytes_done, bytes_total=max(total, 1)))

            try:
                result = await remove(
                    context.library.cache, plan, force=bool(plan.held_locks), on_event=report
                )
            except OpError as error:
                failures.append(error)
                continue
            freed += result.freed_bytes
            context.library.drop([entry.key])
        if failures:
            raise failures[0]
        return f"{models_label([entry for entry, _ in plans])} deleted, {format_size(freed)} freed."

    context.tasks.start(f"Deleting {models_label([entry for entry, _ in plans])}", work)


# -- prune -----------------------------------------------------------------------------------------


async def prune_cache(host: Host, context: Context) -> None:
    """Delete the leftovers of downloads and updates after a confirmation. Run it with `run_dialog`."""
    from mlxk_tui.ops.remove.prune import plan_prune, prune
    from mlxk_tui.ui.inspector.prune_dialog import PruneDialog

    try:
        plan = await plan_prune(context.library.cache)
    except OpError as error:
        notify_error(host, error)
        return
    if not plan.revisions and not plan.blobs and not plan.incomplete:
        host.notify("Nothing to prune.", markup=False)
        return
    if _screen_changed(host) or not await host.app.push_screen_wait(PruneDialog(plan)):
        return

    async def work(on_event: OnEvent) -> str:
        done = await prune(context.library.cache, on_event=on_event)
        await context.library.refresh()
        return f"Pruned, {format_size(done.freed_bytes)} freed."

    context.tasks.start("Pruning", work)


# -- rescan ----------------------------------------------------------------------------------------


async def rescan(host: Host, context: Context) -> None:
    """Rescan the cache and notify the user."""
    await context.library.rescan()
    if context.library.phase is ScanPhase.READY:
        count = plural(len(context.library.entries), "model")
        host.notify(f"Cache rescanned: {count}.", markup=False, timeout=3)


# -- clone -----------------------------------------------------------------------------------------


async def clone_model(
    host: Host, context: Context, entry: Entry, *, text: str | None = None, problem: str = ""
) -> None:
    """Ask for a folder and clone a model to it. Run it with `run_dialog`.

    Args:
        host: the screen below the dialog.
        context: the app's services.
        entry: the model.
        text: the initial folder; by default one named after the model.
        problem: why the last attempt failed.
    """
    from mlxk_tui.ops.clone.clone import clone
    from mlxk_tui.ui.inspector.clone_dialog import CloneDialog, absolute

    cache = context.library.cache
    typed: str | None = None
    if not _screen_changed(host):
        typed = await host.app.push_screen_wait(CloneDialog(entry, cache.root, text=text, problem=problem))
    if typed is None:
        return
    target = Path(absolute(typed))

    async def work(on_event: OnEvent) -> str:
        try:
            done = await clone(cache, entry.report.ref.name, target, on_event=on_event)
        except OpError as error:
            if _screen_changed(host) or not host.is_attached:
                raise
            cause = error_text(error)
            run_dialog(host, clone_model(host, context, entry, text=typed, problem=cause))
            return ""
        how = " without using more disk space" if done.reflinked else ""
        return f"{entry.short} cloned to {printable(str(target))}{how}."

    context.tasks.start(f"Cloning {entry.short}", work)
