"""Parses large bodies in a process, `python -m mlxk_tui.server.http.parser_worker`: frames in, frames out.

A frame is its length in four bytes, big-endian, and then so many bytes. One that comes in is the import
path of a schema (`module:name`), a line feed, and the body. One that goes out is a pickled `Outcome`: both
sides are of one version and trust each other. It ends when stdin does.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import BinaryIO

import psutil

from mlxk_tui.ops.core.lifeline import die_with_parent
from mlxk_tui.server.http.parsing import outcome_of

_MAX_RESIDENT_BYTES = 256 * 2**20
"""A process that has grown beyond this leaves after its answer: Python does not give all memory back."""


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next frame; None at the end."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(int.from_bytes(head, "big"))
    return body if len(body) == int.from_bytes(head, "big") else None


def main() -> int:
    """Parse until stdin ends."""
    die_with_parent(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the parent's to handle
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        outcome = outcome_of(frame)
        del frame
        leaves = psutil.Process().memory_info().rss > _MAX_RESIDENT_BYTES
        written = pickle.dumps(outcome._replace(leaves=leaves), pickle.HIGHEST_PROTOCOL)
        sys.stdout.buffer.write(len(written).to_bytes(4, "big") + written)
        sys.stdout.buffer.flush()
        if leaves:
            break
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)
