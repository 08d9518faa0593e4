"""The trial of a BLAS library in a subprocess, `python -m mlxk_tui.engine.inference.blas.trial PATH SECONDS`.

It prints one line of JSON, a `Trial` without its time. If the library crashes, only this process dies; if it
hangs, a timer ends this process. MLX's products with the library are compared with NumPy's, and their speed
with that of MLX's own products.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlxk_tui.ops.blas.cores import allowed_cores
from mlxk_tui.ops.blas.trials import TrialVerdict

_PR_SET_PDEATHSIG = 1
_GAIN = 3.0
"""Minimum speed-up for 256 rows: real gains are tenfold, while a busy machine may show twofold ones."""
_LOSS = 0.8
"""Minimum speed for a single row, relative to MLX's own."""
_INNER, _OUTER = 576, 768
_ROWS = (1, 8, 256)
_OWN_ROWS = 64
"""Number of rows for timing MLX's own product, which takes 15 ms."""
_REPEATS = {1: 40, 8: 12, 64: 3, 256: 3}


def main(path: str, seconds: float) -> int:
    """Run the trial and print its result.

    Args:
        path: the library.
        seconds: after this time SIGALRM ends the process.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside native code
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library may print to stdout
    verdict, detail, numbers = _run(path)
    print(json.dumps({"verdict": verdict.value, "detail": detail, **numbers}), file=out, flush=True)
    return 0


def _run(path: str) -> tuple[TrialVerdict, str, dict[str, float]]:
    import mlx.core as mx  # the worker itself reports a missing package

    from mlxk_tui.engine.inference.blas import library as blas_library

    mx.set_default_device(mx.cpu)
    try:
        functions = blas_library.load_functions(path)
        own = {1: _speed(mx, 1), _OWN_ROWS: _speed(mx, _OWN_ROWS)}
        blas_library.bind(functions.addresses)
    except blas_library.BlasLibraryError as error:
        return TrialVerdict.UNUSABLE, str(error), {}
    cases = _cases(mx)
    threads = functions.set_threads or (lambda number: None)
    threads(allowed_cores())
    wrong = next(_wrong_products(mx, cases[:1]), None)
    threads(1)  # several threads are very slow if another process uses one of their cores
    wrong = wrong or next(_wrong_products(mx, cases[1:]), None)
    if wrong is not None:
        return TrialVerdict.WRONG, wrong, {}
    speeds = {rows: _speed(mx, rows) for rows in _ROWS}
    gain = speeds[256] / own[_OWN_ROWS]
    numbers = {"gain": gain, "speed": math.exp(sum(map(math.log, speeds.values())) / len(speeds))}
    if gain < _GAIN or speeds[1] < _LOSS * own[1]:
        return TrialVerdict.SLOW, f"{gain:.1f} times its speed", numbers
    return TrialVerdict.GOOD, functions.name, numbers


def _speed(mx: Any, rows: int) -> float:
    """Return the speed of the fastest of a few products, in billions of operations per second."""
    left = mx.random.normal((rows, _INNER))
    right = mx.random.normal((_OUTER, _INNER))
    mx.eval(left, right)
    best = math.inf
    for _ in range(_REPEATS[rows]):
        begin = time.perf_counter()
        mx.eval(left @ right.T)
        best = min(best, time.perf_counter() - begin)
    return 2 * rows * _INNER * _OUTER / best / 1e9


@dataclass(frozen=True)
class _Case:
    """A product and its result from NumPy in double precision."""

    name: str
    kind: Any
    """MLX's dtype."""
    left: Any
    right: Any
    exact: Any
    bound: Any
    """Maximum error of each number."""


def _cases(mx: Any) -> list[_Case]:
    """Return products of all precisions and of irregular shapes, all computed before MLX begins.

    The permitted error is a multiple of epsilon times the sum of the absolute products. NumPy computes first,
    because the threads of its library spin for a while after each product, which would slow down the trial.
    """
    import numpy as np  # a dependency of mlx-lm

    random = np.random.default_rng(7)
    cases = []
    for name, kind, own, epsilon, shapes in (
        (
            "single",
            np.float32,
            mx.float32,
            2.0**-23,
            ((130, 257, 129), (1, 576, 768), (3, 5, 7), (17, 33, 65)),
        ),
        ("double", np.float64, mx.float64, 2.0**-52, ((1, 33, 65), (17, 65, 33))),
        ("complex", np.complex64, mx.complex64, 2.0**-22, ((1, 33, 65), (17, 65, 33))),
    ):
        wide = np.complex128 if kind is np.complex64 else np.float64
        for rows, inner, outer in shapes:
            left, right = random.standard_normal((rows, inner)), random.standard_normal((inner, outer))
            if kind is np.complex64:
                left, right = left + 1j * left[::-1, ::-1], right + 1j * right[::-1, ::-1]
            left, right = left.astype(kind), right.astype(kind)
            exact = left.astype(wide) @ right.astype(wide)
            bound = 32 * epsilon * (np.abs(left) @ np.abs(right)) + 1e-30
            cases.append(
                _Case(f"{name} precision, {rows} x {inner} x {outer}", own, left, right, exact, bound)
            )
    return cases


def _wrong_products(mx: Any, cases: Sequence[_Case]) -> Iterator[str]:
    """Yield the names of the products that differ from NumPy's."""
    import numpy as np

    def close(got: Any, exact: Any, bound: Any) -> bool:
        values = np.array(got)
        return bool(np.all(np.isfinite(values)) and np.all(np.abs(values - exact) <= bound))

    for case in cases:
        for across in (0, 1, 2, 3):  # bit 0: left is not transposed; bit 1: right is not transposed
            a = mx.array(case.left if across & 1 else case.left.T.copy(), dtype=case.kind)
            b = mx.array(case.right if across & 2 else case.right.T.copy(), dtype=case.kind)
            nan = mx.full(case.exact.shape, math.nan, dtype=case.kind)
            mx.eval(a, b, nan)
            del nan  # the product is likely to be written into its memory
            if not close((a if across & 1 else a.T) @ (b if across & 2 else b.T), case.exact, case.bound):
                yield case.name
        if case.kind == mx.float32:
            added = np.ones(case.exact.shape, dtype=np.float32)
            left, right = mx.array(case.left), mx.array(case.right)
            got = mx.addmm(mx.array(added), left, right, alpha=0.5, beta=2.0)
            if not close(got, 0.5 * case.exact + 2.0, case.bound + 1e-5):
                yield f"{case.name}, added"


if __name__ == "__main__":
    code = 1
    with contextlib.suppress(IndexError, ValueError):
        code = main(sys.argv[1], float(sys.argv[2]))
    os._exit(code)  # do not wait for the library's exit handlers
