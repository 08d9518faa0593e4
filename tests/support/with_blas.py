"""Runs a program of mlx-lm with the matrix product that the product's worker has.

`python -m tests.support.with_blas MODULE [ARGUMENT]…` is `python -m MODULE [ARGUMENT]…` after the library
that the worker takes has been bound into MLX; `-c TEXT` runs a text. What is compared token by token has
to be multiplied alike. Within a process, `borrow_blas()` does the same.
"""

from __future__ import annotations

import runpy
import sys
import threading
import time

from mlxk_tui.engine.inference.blas.borrowing import borrow_blas
from mlxk_tui.ops.blas.cores import FreeCores


def _watch(cores: FreeCores) -> None:
    """Give way to other processes, as the worker does between its steps."""
    while True:
        time.sleep(0.5)
        cores.look()


def main() -> None:
    """Bind the library, then run what was asked for."""
    cores = borrow_blas().cores
    if cores is not None:
        threading.Thread(target=_watch, args=(cores,), daemon=True).start()
    if sys.argv[1] == "-c":
        text = sys.argv[2]
        sys.argv[:] = ["-c", *sys.argv[3:]]
        exec(compile(text, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv[:] = sys.argv[1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
