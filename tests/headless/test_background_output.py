"""Output that is not read is dropped and counted; output that is read arrives completely."""

from __future__ import annotations

import subprocess
import sys

from mlxk_tui_headless.background_output import dropped_note
from tests.support.waiting import PATIENCE_S

_WRITER = """
import sys
from mlxk_tui_headless.background_output import write_in_background
with write_in_background():
    for number in range(20_000):
        print(f"{number:0100}", file=sys.stderr)
    print("written", flush=True)
    sys.stdin.readline()
    print("and this", file=sys.stderr)
"""


def writer() -> subprocess.Popen[str]:
    """Run a program that writes two megabytes to stderr, and a last line after a line on stdin."""
    return subprocess.Popen(
        [sys.executable, "-c", _WRITER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_dropped_lines_are_counted() -> None:
    with writer() as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == "written\n"  # although nothing was read
        lines = [child.stderr.readline() for _ in range(5000)]  # there is space again
        child.stdin.write("\n")
        child.stdin.flush()
        lines += child.stderr.readlines()
        assert child.wait(PATIENCE_S) == 0
    *lines, last = lines
    expected = 0
    for line in lines:  # there may be space again for a moment
        if line.startswith("..."):
            dropped = int(line.split()[1].replace(",", ""))
            assert line == dropped_note(dropped)
            expected += dropped
        else:
            assert int(line) == expected
            expected += 1
    assert expected == 20_000
    assert any(line.startswith("...") for line in lines)
    assert last == "and this\n"


def test_exit_does_not_wait_for_a_blocked_reader() -> None:
    with writer() as child:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait(PATIENCE_S) == 0
