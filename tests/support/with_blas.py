"""Runs a program of mlx-lm with the BLAS library of our worker.

`python -m tests.support.with_blas MODULE [ARGUMENT]…` is `python -m MODULE [ARGUMENT]…` with the worker's
library bound into MLX; `-c TEXT` runs code. A comparison token by token needs the same matrix products.
Inside a process, `install_blas()` does the same.
"""

from __future__ import annotations

import runpy
import sys
import threading
import time

from mlxk_tui.engine.inference.blas.installation import install_blas
from mlxk_tui.ops.blas.cores import ThreadLimiter


def _watch(cores: ThreadLimiter) -> None:
    """Yield cores to other processes, like the worker between its steps."""
    while True:
        time.sleep(0.5)
        cores.update()


def main() -> None:
    """Bind the library, then run the program."""
    cores = install_blas().cores
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
