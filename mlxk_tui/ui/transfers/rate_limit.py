"""Asks for a rate limit: of one download, or of all of them."""

from __future__ import annotations

import dataclasses
import math

from mlxk_tui.transfers.jobs import Pull, Transfer
from mlxk_tui.transfers.rate_limits import from_megabytes, to_megabytes
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.inspector.model_actions import Host
from mlxk_tui.ui.inspector.pull_actions import short_name, try_action
from mlxk_tui.ui.shell.context import Context

_HIGHEST = 100_000.0


def parse_limit(text: str) -> float | None:
    """Return the MB/s in a text, 0 for no limit (also for an empty text); None if it is not valid."""
    number = text.strip().casefold()
    for unit in ("mb/s", "mb"):
        number = number.removesuffix(unit).rstrip()
    try:
        value = float(number.replace(",", ".")) if number else 0.0
    except ValueError:
        return None
    return value if math.isfinite(value) and (value == 0 or 0.001 <= value <= _HIGHEST) else None


def check_limit(text: str) -> tuple[bool, str]:
    """Return whether a text is a limit, and its meaning or the fault."""
    value = parse_limit(text)
    if value is None:
        return False, "Enter MB/s, from 0.001 to 100,000, or nothing."
    return True, f"At most {value:g} MB/s." if value else "No limit."


def limit_transfer(host: Host, context: Context, transfer: Transfer) -> None:
    """Ask for the limit of a download, and apply it at once."""
    model_actions.run_dialog(host, _limit_transfer(host, context, transfer))


def limit_all(host: Host, context: Context) -> None:
    """Ask for the limit of all downloads together, and apply it at once."""
    model_actions.run_dialog(host, _limit_all(host, context))


async def _limit_transfer(host: Host, context: Context, transfer: Transfer) -> None:
    job = transfer.job
    if not isinstance(job, Pull):
        return
    title, prompt = f"Limit {short_name(transfer)}", "Maximum rate of this download in MB/s; empty for none."
    value = await _ask(host, title, prompt, job.rate_limit)
    if value is not None:
        changed = dataclasses.replace(job, rate_limit=from_megabytes(value))
        context.rate_limits.of(changed)
        try_action(host, lambda: context.transfers.replace_job(transfer.id, changed))


async def _limit_all(host: Host, context: Context) -> None:
    prompt = "Maximum rate of all downloads together in MB/s; empty for none."
    value = await _ask(host, "Limit all downloads", prompt, context.rate_limits.total)
    if value is not None:
        context.rate_limits.set_total(from_megabytes(value))


async def _ask(host: Host, title: str, prompt: str, rate: float | None) -> float | None:
    from mlxk_tui.ui.widgets.choice_dialogs import InputDialog

    shown = f"{to_megabytes(rate):g}" if rate is not None else ""
    text = await host.app.push_screen_wait(
        InputDialog(title, prompt, shown, proceed="Apply", check=check_limit)
    )
    return None if text is None else parse_limit(text)
