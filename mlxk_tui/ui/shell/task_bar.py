"""The line above the footer with the running task."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.services.tasks import Task, Tasks
from mlxk_tui.ui.shell.tasks import stop_latest_task
from mlxk_tui.ui.widgets.subscriber import Subscriber
from mlxk_tui.ui.widgets.text import Part, cut, gauge, line

_GAUGE = 12


class TaskBar(Subscriber, Static):
    """Title, gauge, percentage, bytes and rate of the latest task; hidden while none runs.

    Args:
        tasks: the running tasks.
        stop_key: the key that stops the task on this screen, as shown to the user.
    """

    def __init__(self, tasks: Tasks, *, stop_key: str = "esc") -> None:
        super().__init__(id="task-bar")
        self._tasks = tasks
        self._stop_key = stop_key
        self._timer: Timer | None = None
        self.display = False

    def on_mount(self) -> None:
        self.subscribe(self._tasks.changed, lambda _: self._update())
        self._timer = self.set_interval(0.1, self._draw, pause=True)
        self._update()

    def _update(self) -> None:
        busy = bool(self._tasks.running)
        self.display = busy
        if self._timer is not None:
            if busy:
                self._timer.resume()
            else:
                self._timer.pause()
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_click(self) -> None:
        stop_latest_task(self.app, self._tasks)

    def _draw(self) -> None:
        if self._tasks.running and self.is_attached and self.screen.is_current:
            self.update(describe(self._tasks.running, self.size.width, self._stop_key))


def describe(running: list[Task], width: int, stop_key: str = "esc") -> Content:
    """Return the line for the latest task, with the key that stops it."""
    task = running[-1]
    progress = task.progress
    title = printable(task.title)
    # What does not fit beside the title is left out; the title is truncated last.
    share: list[Part] = []
    numbers: list[Part] = []
    rate: list[Part] = []
    full, empty = "", ""
    if progress is not None and progress.bytes_total:
        part = progress.bytes_done / progress.bytes_total
        share = [(f" {part:4.0%}", "")]
        full, empty = gauge(part, _GAUGE)
        done, total = format_size(progress.bytes_done), format_size(progress.bytes_total)
        numbers = [(f"  {done} of {total}", "$muted")]
        if progress.rate:
            rate = [(f"  {format_size(int(progress.rate))}/s", "$muted")]
    elif progress is not None and progress.files_total:
        numbers = [(f" {progress.files_done:,} of {progress.files_total:,}", "$muted")]
    more: list[Part] = [(f"  +{len(running) - 1} more", "$muted")] if len(running) > 1 else []
    stop: list[Part] = [(f"  {stop_key}", "$accent"), (" stop", "$muted")]
    left = width - 4 - cell_len(title) - _cells([*share, *more, *stop])
    if _cells(numbers) > left:
        numbers = []
    left -= _cells(numbers)
    drawn: list[Part] = [(f" {full}", "$accent"), (empty, "$line")] if full or empty else []
    if _cells(drawn) > left:
        drawn = []
    left -= _cells(drawn)
    if _cells(rate) > left:
        rate = []
    tail = [*drawn, *share, *numbers, *rate, *more, *stop]
    return line([("● ", "$accent"), (cut(title, max(8, width - 4 - _cells(tail))), ""), *tail])


def _cells(parts: Sequence[Part]) -> int:
    return sum(cell_len(text) for text, _ in parts)
