"""Asks the hub which cached models have an update; the library shows the result.

Nothing is asked by itself unless the app calls `start_daily`. The result and the time of the last complete
check are stored, so that a restart neither asks again nor forgets it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui.ops.core.events import OnEvent
from mlxk_tui.ops.core.files import read_bytes, replace_file
from mlxk_tui.ops.core.text import plural
from mlxk_tui.services.library import AvailableUpdate, Library
from mlxk_tui.services.tasks import Tasks

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub
    from mlxk_tui.ops.pull.update_check import UpdateChecks

DAY_SECONDS = 86_400.0
_ABOUT = "updates"
_VERSION = 1
_MAX_BYTES = 4_000_000
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_TEXT = 300


class UpdateChecker:
    """Checks for updates and stores what it found.

    Args:
        library: the models; its cache is compared.
        hub: returns the hub; raises OpError if its address or token is invalid.
        path: the file of the result; its folder is created on demand.
    """

    def __init__(self, library: Library, hub: Callable[[], Hub], path: Path) -> None:
        self._library = library
        self._hub = hub
        self._path = path
        self._checked = 0.0
        self._found: dict[str, AvailableUpdate] = {}

    async def load(self) -> None:
        """Show the stored result; a missing or invalid file is like none."""
        self._checked, self._found = await asyncio.to_thread(_read, self._path)
        self._library.set_updates(self._found)

    def start(self, tasks: Tasks) -> bool:
        """Start a check as a task; return False if one is running."""
        return self._start(tasks, daily=False)

    def start_daily(self, tasks: Tasks) -> None:
        """Start a check unless the last one was less than a day ago."""
        if not 0 <= self._library.clock() - self._checked < DAY_SECONDS:
            self._start(tasks, daily=True)

    def _start(self, tasks: Tasks, *, daily: bool) -> bool:
        if tasks.works_on(_ABOUT):
            return False
        tasks.start("Checking for updates", lambda on_event: self._check(on_event, daily), about=[_ABOUT])
        return True

    async def _check(self, on_event: OnEvent, daily: bool) -> str:
        """Compare all models; return the result as a sentence, empty if a daily check found nothing."""
        from mlxk_tui.ops.pull.update_check import check_updates  # not needed unless asked

        hub = self._hub()
        if daily and hub.offline:  # on purpose
            return ""
        checks = await check_updates(self._library.cache, hub=hub, on_event=on_event)
        self._found = _merged(self._found, checks)
        self._library.set_updates(self._found)
        if checks.hub_error is None:
            self._checked = self._library.clock()
        await asyncio.to_thread(_write, self._path, self._checked, self._found)
        if checks.hub_error is not None:
            raise checks.hub_error
        return _sentence(checks, daily=daily)


def _sentence(checks: UpdateChecks, *, daily: bool) -> str:
    from mlxk_tui.ops.contract.terms import UpdateStatus

    statuses = [check.status for check in checks.checks]
    available, unknown = statuses.count(UpdateStatus.AVAILABLE), statuses.count(UpdateStatus.UNKNOWN)
    if daily and not available:
        return ""
    skipped = f" {plural(unknown, 'model')} could not be compared." if unknown else ""
    if available:
        return f"{plural(available, 'update')} available. Filter with update:available.{skipped}"
    current = statuses.count(UpdateStatus.CURRENT)
    return f"No updates: {plural(current, 'model')} up to date.{skipped}"


def _merged(before: Mapping[str, AvailableUpdate], checks: UpdateChecks) -> dict[str, AvailableUpdate]:
    """Return the updates that are known now; those of models that could not be asked about stay."""
    from mlxk_tui.ops.contract.terms import UpdateReason, UpdateStatus

    found: dict[str, AvailableUpdate] = {}
    for check in checks.checks:
        key = check.ref.folder_name
        if check.status is UpdateStatus.AVAILABLE and check.commit and check.latest and check.revision:
            found[key] = AvailableUpdate(check.commit, check.latest, check.revision, check.last_modified)
        elif check.reason in {UpdateReason.NETWORK_ERROR, UpdateReason.OFFLINE} and key in before:
            found[key] = before[key]
    return found


def _read(path: Path) -> tuple[float, dict[str, AvailableUpdate]]:
    """Return the time of the last check and its result. Blocking."""
    content = read_bytes(str(path), _MAX_BYTES)
    if content is None or len(content) > _MAX_BYTES:
        return 0.0, {}
    try:
        document = json.loads(content)
        if document["version"] != _VERSION:
            return 0.0, {}
        found = {str(key): AvailableUpdate(**values) for key, values in document["updates"].items()}
        checked = float(document["checked"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return 0.0, {}
    return checked, {key: update for key, update in found.items() if _is_valid(update)}


def _is_valid(update: AvailableUpdate) -> bool:
    commits, texts = (update.commit, update.latest), (update.revision, update.last_modified or "")
    return (
        all(isinstance(value, str) for value in (*commits, *texts))
        and all(_COMMIT.fullmatch(commit) for commit in commits)
        and all(len(text) <= _MAX_TEXT and text.isprintable() for text in texts)
    )


def _write(path: Path, checked: float, found: Mapping[str, AvailableUpdate]) -> None:
    """Store the result. Blocking."""
    document = {
        "version": _VERSION,
        "checked": checked,
        "updates": {key: asdict(update) for key, update in found.items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, json.dumps(document), mode=0o600)
    except OSError:  # the next start asks again
        return
