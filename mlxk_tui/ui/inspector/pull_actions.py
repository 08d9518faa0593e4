"""Pulling and pushing from whichever screen: queued, or refused with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlxk_tui.ops.cache.names import is_clean
from mlxk_tui.ops.contract.terms import Severity
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.ops.push.terms import push_disabled
from mlxk_tui.services.library import Entry
from mlxk_tui.transfers.jobs import Job, Pull, Transfer
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.inspector.model_actions import Host
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.registry import PUSH_FORM, SEARCH, make_screen
from mlxk_tui.ui.widgets.error_text import error_text


def short_name(transfer: Transfer) -> str:
    """Return the model's own name, with the revision where one was asked for; safe to show."""
    name = printable(transfer.job.name.rpartition("/")[2] or transfer.job.name)
    revision = printable(transfer.job.revision)
    return f"{name}@{revision[:12]}" if revision else name


def attempt(host: Host, act: Callable[[], object]) -> bool:
    """Do something with the queue; why it cannot be done is told in a sentence."""
    try:
        act()
    except OpError as error:
        model_actions.tell_error(host, error)
        return False
    return True


# -- starting ------------------------------------------------------------------------------------------


def queue(host: Host, context: Context, jobs: Sequence[Job]) -> None:
    """Queue jobs and say so, once for all of them."""
    added: list[Transfer] = []
    known: list[Transfer] = []
    for job in jobs:
        try:
            transfer, new = context.transfers.add(job)
        except OpError as error:
            model_actions.tell_error(host, error)
            break
        (added if new else known).append(transfer)
    if added:
        what = short_name(added[0]) if len(added) == 1 else plural(len(added), "model")
        where = "" if host.app.current_mode == "transfers" else " Transfers (3) shows how far it is."
        verb = "is" if len(added) == 1 else "are"
        host.notify(f"{what} {verb} queued.{where}", markup=False, timeout=4)
    elif known:
        first = short_name(known[0])
        text = f"{first} is in the queue already." if len(known) == 1 else "All are in the queue already."
        host.notify(text, markup=False, timeout=4)


def why_no_pull(context: Context, entries: Sequence[Entry]) -> str | None:
    """Return why models cannot be pulled again, as a sentence; None where they can."""
    if reason := context.transfers.locked:
        return reason
    unknown = [entry for entry in entries if not is_clean(entry.report.ref.name)]
    return f"{unknown[0].short} has a name that no hub knows." if unknown else None


def pull_again(host: Host, context: Context, entries: Sequence[Entry]) -> None:
    """Queue pulls of cached models: what is missing, broken or older than on the hub is fetched."""
    queue(host, context, [Pull(entry.report.ref.name, _doubted(entry)) for entry in entries])


def _doubted(entry: Entry) -> tuple[str, ...]:
    """Return the files whose bytes are known to be wrong, so that the pull looks at them."""
    return tuple(
        finding.path for finding in entry.findings if finding.severity is Severity.ERROR and finding.path
    )


def find_models(host: Host, context: Context) -> None:
    """Open the search of the hub."""
    host.app.push_screen(make_screen(SEARCH, context))


def why_no_push(context: Context) -> str | None:
    """Return why nothing can be pushed, as a sentence; None where it can."""
    if not context.push:
        return error_text(push_disabled())
    return context.transfers.locked


def push_folder(host: Host, context: Context) -> None:
    """Open the push form."""
    host.app.push_screen(make_screen(PUSH_FORM, context))
