"""The worker process that parses large bodies: `python -m mlxk_tui.server.http.parser_worker`.

It reads frames from stdin and writes frames to stdout. A frame is a length in four bytes, big-endian, and
that many bytes. An input frame is the import path of a schema (`module:name`), a line feed, and the body.
An output frame is a pickled `ParseResult`: both sides have the same version and trust each other. The
process exits when stdin is closed.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import BinaryIO

import psutil

from mlxk_tui.ops.core.lifeline import die_with_parent
from mlxk_tui.server.http.json_body import parse_frame

_MAX_RESIDENT_BYTES = 256 * 2**20
"""A process larger than this exits after its result: Python doesn't return all memory to the system."""


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the content of the next frame; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    body = stream.read(int.from_bytes(head, "big"))
    return body if len(body) == int.from_bytes(head, "big") else None


def main() -> int:
    """Parse frames until stdin is closed; return the exit status."""
    die_with_parent(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the parent's to handle
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        result = parse_frame(frame)
        del frame
        exits = psutil.Process().memory_info().rss > _MAX_RESIDENT_BYTES
        written = pickle.dumps(result._replace(exits=exits), pickle.HIGHEST_PROTOCOL)
        sys.stdout.buffer.write(len(written).to_bytes(4, "big") + written)
        sys.stdout.buffer.flush()
        if exits:
            break
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)
