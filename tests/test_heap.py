"""All threads use one heap of the C library."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's heaps")

_HEAP = 64 << 20
"""Size and alignment of the address range that glibc reserves for a thread's heap."""
_THREADS = """
import sys, threading
if sys.argv[1] == "one":
    from mlxk_tui.heap import use_one_heap
    assert use_one_heap()
barrier, blocks = threading.Barrier(6), []
def work():
    blocks.append(bytearray(5000))
    barrier.wait()
threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(blocks), flush=True)
input()
"""


def heaps(pid: int) -> int:
    """Count the heaps of threads: each has a used part, followed by an unused part."""
    spans = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        addresses, access = line.split()[:2]
        begin, end = (int(each, 16) for each in addresses.split("-"))
        spans.append((begin, end, access))
    return sum(
        begin % _HEAP == 0 and end == rest and last - begin == _HEAP and (access, other) == ("rw-p", "---p")
        for (begin, end, access), (rest, last, other) in pairwise(spans)
    )


@pytest.mark.parametrize(("mode", "expected"), [("own", 6), ("one", 0)])
def test_threads_share_one_heap(monkeypatch: pytest.MonkeyPatch, mode: str, expected: int) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    command = [sys.executable, "-c", _THREADS, mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "6\n"
        assert heaps(process.pid) == expected
        process.stdin.write("\n")
