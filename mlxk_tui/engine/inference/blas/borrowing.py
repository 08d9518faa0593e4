"""Lets the worker multiply with the best library that passes its trial; without one MLX stays as it is."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import mlx.core as mx

from mlxk_tui.engine.inference.blas.products import ProductsError, bind, load_products
from mlxk_tui.ops.blas.choice import choose, describe
from mlxk_tui.ops.blas.cores import ThreadLimiter, thread_variables
from mlxk_tui.ops.blas.libraries import BlasLibrary, find_libraries
from mlxk_tui.ops.blas.trials import Trial, TrialStore, TrialVerdict
from mlxk_tui.ops.contract.matrices import Blas
from mlxk_tui.ops.core.child_process import HOME
from mlxk_tui.ops.core.text import printable

_TRIAL_S = 8.0
"""How long a trial may take on the busiest machine; on a quiet one it takes a third of a second."""


@dataclass(frozen=True)
class Borrowed:
    """What came of it."""

    blas: Blas | None = None
    """None where MLX needs no other library: beside Linux, and with a GPU."""
    cores: ThreadLimiter | None = None
    """What keeps the library's threads to the free cores; to be let look now and then while there is work."""


def borrow_blas(trial_s: float = _TRIAL_S) -> Borrowed:
    """Give MLX the best library there is; called once, before anything else is done with MLX."""
    if not sys.platform.startswith("linux") or mx.default_device() != mx.Device(mx.cpu):
        return Borrowed()
    # Before any library is loaded: they read it when they start, and so does the trial.
    ours = thread_variables(os.environ)
    os.environ.update(ours)
    libraries = find_libraries(os.environ)
    return _with(_tried(libraries, trial_s), govern=bool(ours))


def _with(tried: Sequence[tuple[BlasLibrary, Trial]], *, govern: bool) -> Borrowed:
    """Load and bind the best of them; the next best where it cannot be loaded any more."""
    left = list(tried)
    cores: ThreadLimiter | None = None
    while (chosen := choose(left)) is not None:
        library = chosen[0]
        try:
            products = load_products(library.path)
            before = bind(products.addresses)
            if not _sane():
                bind(before)
                raise ProductsError("it multiplies wrongly in this process")
            if govern and products.set_threads is not None:
                cores = ThreadLimiter(products.set_threads)
            break
        except ProductsError as error:
            left[left.index(chosen)] = (library, Trial(TrialVerdict.UNUSABLE, printable(str(error))))
    return Borrowed(describe(os.environ, left), cores)


def _sane() -> bool:
    """Whether a product of small whole numbers is exact."""
    left = mx.arange(12, dtype=mx.float32).reshape(3, 4)
    return bool((left @ left.T == (left[:, None] * left[None]).sum(axis=2)).all().item())


def _tried(libraries: Sequence[BlasLibrary], trial_s: float) -> list[tuple[BlasLibrary, Trial]]:
    """Return each library's trial, remembered or made now."""
    trials = TrialStore(version("mlx"))
    known = {library: trials.get(library) for library in libraries}
    if None in known.values():
        with trials.locked(trial_s * len(libraries)):
            trials.read()
            for library in libraries:
                if trials.get(library) is None:
                    trial = _try(library, trial_s)
                    known[library] = trial
                    trials.put(library, trial)
                else:
                    known[library] = trials.get(library)
    trials.save()
    return [(library, trial) for library, trial in known.items() if trial is not None]


def _try(library: BlasLibrary, trial_s: float) -> Trial:
    command = [sys.executable, "-m", f"{__package__}.trial", library.path, str(trial_s)]
    try:
        ended = subprocess.run(  # noqa: S603 - ourselves
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=HOME,
            timeout=trial_s + 2,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Trial(TrialVerdict.HUNG, at=time.time())
    except OSError as error:
        return Trial(TrialVerdict.HUNG, f"no process for its trial: {error.strerror}", at=time.time())
    if ended.returncode == -signal.SIGALRM:
        return Trial(TrialVerdict.HUNG, f"not after {trial_s:g} s", at=time.time())
    try:
        said = json.loads(ended.stdout)
        numbers = [float(said.get(name, 0.0)) for name in ("gain", "speed")]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("no number")
        detail = printable(str(said["detail"]))[:200]
        return Trial(TrialVerdict(said["verdict"]), detail, numbers[0], numbers[1], time.time())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Trial(TrialVerdict.DIED, _end_of(ended.returncode), at=time.time())


def _end_of(status: int) -> str:
    try:
        return signal.Signals(-status).name if status < 0 else f"status {status}"
    except ValueError:
        return f"signal {-status}"
