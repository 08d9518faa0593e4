"""Actions that queue pulls and pushes, for all screens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.contract.terms import Severity
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.ops.push.request import push_disabled
from mlxk_tui.services.library import Entry
from mlxk_tui.transfers.jobs import Job, Pull, Transfer
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.inspector.model_actions import Host
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.registry import PUSH_FORM, SEARCH, make_screen
from mlxk_tui.ui.widgets.error_text import error_text


def short_name(transfer: Transfer) -> str:
    """Return the model's name without its organization, with the revision if there is one; safe to show."""
    name = printable(transfer.job.name.rpartition("/")[2] or transfer.job.name)
    revision = printable(transfer.job.revision)
    return f"{name}@{revision[:12]}" if revision else name


def try_action(host: Host, action: Callable[[], object]) -> bool:
    """Run an action on the queue; show its error, and return whether it succeeded."""
    try:
        action()
    except OpError as error:
        model_actions.notify_error(host, error)
        return False
    return True


# -- starting ------------------------------------------------------------------------------------------


def enqueue(host: Host, context: Context, jobs: Sequence[Job]) -> None:
    """Queue jobs; one notification covers all of them."""
    added: list[Transfer] = []
    known: list[Transfer] = []
    for job in jobs:
        try:
            transfer, new = context.transfers.add(job)
        except OpError as error:
            model_actions.notify_error(host, error)
            break
        (added if new else known).append(transfer)
    if added:
        what = short_name(added[0]) if len(added) == 1 else plural(len(added), "model")
        hint = "" if host.app.current_mode == "transfers" else ". See Transfers (3) for progress."
        host.notify(f"Queued: {what}{hint}", markup=False, timeout=4)
    elif known:
        first = short_name(known[0])
        text = f"{first} is already queued." if len(known) == 1 else "All of them are already queued."
        host.notify(text, markup=False, timeout=4)


def pull_disabled_reason(context: Context, entries: Sequence[Entry]) -> str | None:
    """Return why models can't be pulled, as a sentence; None if they can."""
    if reason := context.transfers.read_only_reason:
        return reason
    invalid = [entry for entry in entries if not is_valid_repo_name(entry.report.ref.name)]
    return f"{invalid[0].short} can't be pulled: its name is not valid on the hub." if invalid else None


def pull_entries(host: Host, context: Context, entries: Sequence[Entry]) -> None:
    """Queue pulls of cached models, which download missing, broken or newer files."""
    enqueue(host, context, [Pull(_spec(entry), _suspect_files(entry)) for entry in entries])


def _spec(entry: Entry) -> str:
    """Return what to pull: the branch of an available update, else main."""
    name, update = entry.report.ref.name, entry.update
    return name if update is None or update.revision == "main" else f"{name}@{update.revision}"


def check_updates(host: Host, context: Context) -> None:
    """Ask the hub for updates of all models, unless that is running."""
    if not context.updates.start(context.tasks):
        host.notify("Already checking for updates.", markup=False, timeout=4)


def _suspect_files(entry: Entry) -> tuple[str, ...]:
    """Return the files with errors, which the pull checks byte by byte."""
    return tuple(
        finding.path for finding in entry.findings if finding.severity is Severity.ERROR and finding.path
    )


def open_hub_search(host: Host, context: Context) -> None:
    """Open the hub search."""
    host.app.push_screen(make_screen(SEARCH, context))


def push_disabled_reason(context: Context) -> str | None:
    """Return why pushing is disabled, as a sentence; None if it is enabled."""
    if not context.push:
        return error_text(push_disabled())
    return context.transfers.read_only_reason


def open_push_form(host: Host, context: Context) -> None:
    """Open the push form."""
    host.app.push_screen(make_screen(PUSH_FORM, context))
