"""Progress events: what a running operation tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One step of a long operation, sent at most about ten times a second for each file."""

    stage: str
    """What is going on: `scan`, `verify`, `remove`, `prune`, `clone`, `pull`, `push`, `load`, or `wait`:
    another process is at it."""
    file: str
    """The file or model being worked on; empty when the step is about the whole."""
    bytes_done: int
    """Bytes finished so far, over all files of the operation."""
    bytes_total: int
    """Bytes in all; 0 while unknown."""
    rate: float
    """Bytes per second, of late where the operation takes long."""
    files_done: int = 0
    """Files or models finished so far."""
    files_total: int = 0
    """Files or models in all; 0 while unknown."""
    file_bytes_done: int = 0
    """Bytes of `file` finished so far; 0 where files are not counted one by one."""
    file_bytes_total: int = 0
    """Bytes of `file` in all; 0 while unknown."""


OnEvent = Callable[[Progress], None]
"""Receives events; may be called from a worker thread and must return at once."""


def ignore(event: Progress) -> None:
    """Receive an event and do nothing: the default of every operation."""
