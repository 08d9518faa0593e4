"""Shows the progress of an operation on stderr: JSON lines, or a progress bar."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict

from mlxk_tui.ops.core.events import OnEvent, Progress
from mlxk_tui_headless import output

_lock = threading.Lock()


def json_lines(event: Progress) -> None:
    """Write one event as one line of JSON; thread-safe."""
    line = output.to_json(asdict(event)) + "\n"
    with _lock:
        output.write_error(line)


@contextlib.contextmanager
def bar() -> Iterator[OnEvent]:
    """Draw a progress bar on stderr while the block runs, and erase it at the end."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress as RichProgress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from mlxk_tui.ops.core.text import printable, truncate_middle

    console = Console(file=sys.stderr, markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def on_event(event: Progress) -> None:
            file = truncate_middle(printable(event.file), max(8, console.width - 60))
            progress.update(
                task,
                description=f"{event.stage} {file}".rstrip(),
                completed=event.bytes_done,
                total=event.bytes_total or None,
            )

        yield on_event
