"""Makes the C library use one heap for all threads, so that memory freed by one thread is reused by the next.

glibc gives threads separate heaps, up to eight per core, and returns only memory at the end of a heap. The
app reads caches and hubs in short-lived threads whose results stay in memory, which fragments every heap.
After eight minutes of key presses the heaps took 175 MB for 26 MB in use; a single heap took 29 MB. Python
holds the interpreter lock while it allocates, so threads do not wait for each other at a single heap.
"""

from __future__ import annotations

import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Constants of glibc's malloc.h."""
_TRIM, _MAP = 256 << 10, 128 << 10
"""Free bytes at the end of the heap that are returned, and the size from which blocks are mapped separately.

The second is glibc's default. If neither is set, freeing a large block raises the second to up to 32 MB and
the first to twice as much.
"""


def use_one_heap() -> bool:
    """Use one heap for all threads; return False if the C library does not support this.

    Call it before other threads allocate: existing heaps stay in use. `MALLOC_ARENA_MAX` is respected.
    """
    if sys.platform != "linux" or "MALLOC_ARENA_MAX" in os.environ:
        return False
    import ctypes  # takes 5 ms, and only Linux needs it

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, _TRIM), (_M_MMAP_THRESHOLD, _MAP))
    return all(mallopt(name, value) == 1 for name, value in settings)
