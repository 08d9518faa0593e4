"""Runs `pull`: one model, or several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui.ops.contract.transfers import DownloadStatus, PullBatchData, PullData
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.download.options import DownloadOptions
from mlxk_tui.ops.download.rate_limit import RateLimit
from mlxk_tui.ops.pull.batch import PullBatch
from mlxk_tui.ops.pull.pull import ReceivedBytes, pull
from mlxk_tui.ops.pull.results import failed_pull

if TYPE_CHECKING:
    from mlxk_tui.ops.hub.hub import Hub
    from mlxk_tui.ops.pull.patterns import FilePatterns
    from mlxk_tui.ops.pull.plan import PullPlan
    from mlxk_tui_headless.session import CommandSession

_MAX_LIST_BYTES = 1_000_000
STOPPED = "Stopped by the user. Run the same command again to resume."
"""Message of a transfer that a signal ended."""


def read_specs(path: str) -> list[str]:
    """Return the models in a file: one per line; empty lines, and what follows a `#`, are ignored.

    Args:
        path: the file, or `-` for stdin.

    Raises:
        OpError: `validation_error` if it cannot be read, is no text, or names no model.
    """
    shown = "stdin" if path == "-" else printable(path)
    try:
        if path == "-":
            raw = sys.stdin.buffer.read(_MAX_LIST_BYTES + 1)
        else:
            with open(path, "rb") as stream:
                raw = stream.read(_MAX_LIST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
        raise OpError(ErrorType.VALIDATION_ERROR, f"{shown} cannot be read: {reason}.") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OpError(ErrorType.VALIDATION_ERROR, f"{shown} is not UTF-8 text.") from None
    specs = [spec for line in text.splitlines() if (spec := line.partition("#")[0].strip())]
    if len(raw) > _MAX_LIST_BYTES or not specs:
        reason = "is too long for a list of models" if specs else "names no model"
        raise OpError(ErrorType.VALIDATION_ERROR, f"{shown} {reason}. Write one name per line.")
    return specs


def limited(rate: float | None) -> DownloadOptions:
    """Return the options of a download with a limit in bytes per second, or without one."""
    return DownloadOptions(rate_limits=() if rate is None else (RateLimit(rate),))


@dataclass(frozen=True)
class PullCommand:
    """The options of `pull`."""

    hub: Hub
    dry_run: bool
    via_hub: bool
    verify: bool
    patterns: FilePatterns
    options: DownloadOptions

    def pull_one(self, session: CommandSession, spec: str) -> PullData:
        """Pull a model.

        Raises:
            OpError: the errors of the operation, and `cancelled`; each with a PullData as `data`.
        """
        plans: list[PullPlan] = []
        with session.progress() as on_event:
            received = ReceivedBytes(on_event)
            try:
                return session.wait(
                    pull(
                        session.cache,
                        spec,
                        hub=self.hub,
                        dry_run=self.dry_run,
                        via_hub=self.via_hub,
                        verify=self.verify,
                        patterns=self.patterns,
                        options=self.options,
                        on_event=received.on_event,
                        on_plan=plans.append,
                    )
                )
            except KeyboardInterrupt:
                data = failed_pull(
                    spec,
                    plans[0] if plans else None,
                    DownloadStatus.CANCELLED,
                    STOPPED,
                    downloaded=received.total_bytes,
                )
                raise OpError(ErrorType.CANCELLED, STOPPED, data=data) from None

    def pull_all(self, session: CommandSession, specs: Sequence[str]) -> PullBatchData:
        """Pull several models.

        Raises:
            OpError: the errors of the operation, and `cancelled`; each with a PullBatchData as `data`.
        """
        with session.progress() as on_event:
            batch = PullBatch(
                session.cache,
                specs,
                hub=self.hub,
                dry_run=self.dry_run,
                via_hub=self.via_hub,
                verify=self.verify,
                patterns=self.patterns,
                options=self.options,
                on_event=on_event,
            )
            try:
                return session.wait(batch.run())
            except KeyboardInterrupt:
                data = batch.data(DownloadStatus.CANCELLED, "Not started.")
                raise OpError(ErrorType.CANCELLED, STOPPED, data=data) from None
