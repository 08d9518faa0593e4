"""The line above the footer that shows a running task."""

from __future__ import annotations

from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from mlxk_tui.ops.format import printable
from mlxk_tui.tasks import Task, Tasks
from mlxk_tui.widgets.text import Part, cut, gauge, line, spaced_size


class TaskBar(Static):
    """Title, gauge, share, bytes and rate of the task started last; hidden while nothing runs."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__(id="task-bar")
        self._tasks = tasks
        self._timer: Timer | None = None
        self.display = False

    def on_mount(self) -> None:
        """Follow the tasks."""
        self._tasks.changed.subscribe(self, lambda _: self._follow())
        self._timer = self.set_interval(0.1, self._draw, pause=True)
        self._follow()

    def _follow(self) -> None:
        busy = bool(self._tasks.running)
        self.display = busy
        if self._timer is not None:
            if busy:
                self._timer.resume()
            else:
                self._timer.pause()
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def on_click(self) -> None:
        """Stop the task."""
        self._tasks.cancel()

    def _draw(self) -> None:
        if self._tasks.running and self.is_attached and self.screen.is_current:
            self.update(describe(self._tasks.running, self.size.width))


def describe(running: list[Task], width: int) -> Content:
    """Return the line for the task started last."""
    task = running[-1]
    progress = task.progress
    tail: list[Part] = []
    if progress is not None and progress.bytes_total:
        share = progress.bytes_done / progress.bytes_total
        full, empty = gauge(share, 12)
        tail += [(full, "$accent"), (empty, "$line"), (f" {share:4.0%}", "")]
        tail.append(
            (f"  {spaced_size(progress.bytes_done)} of {spaced_size(progress.bytes_total)}", "$muted")
        )
        if progress.rate and width >= 100:
            tail.append((f"  {spaced_size(int(progress.rate))}/s", "$muted"))
    elif progress is not None and progress.files_total:
        tail.append((f"{progress.files_done:,} of {progress.files_total:,}", "$muted"))
    if len(running) > 1:
        tail.append((f"  +{len(running) - 1} more", "$muted"))
    stop: list[Part] = [("  esc", "$accent"), (" stop", "$muted")]
    taken = sum(len(text) for text, _ in (*tail, *stop)) + 5
    return line(
        [("● ", "$accent"), (cut(printable(task.title), max(8, width - taken)), ""), ("  ", ""), *tail, *stop]
    )
