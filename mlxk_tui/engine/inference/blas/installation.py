"""Installs the best BLAS library that passes its trial in the worker; without one MLX remains unchanged."""

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

from mlxk_tui.engine.inference.blas.library import BlasLibraryError, bind, load_functions
from mlxk_tui.ops.blas.choice import choose, describe
from mlxk_tui.ops.blas.cores import ThreadLimiter, thread_variables
from mlxk_tui.ops.blas.libraries import BlasLibrary, find_libraries
from mlxk_tui.ops.blas.trials import Trial, TrialStore, TrialVerdict
from mlxk_tui.ops.contract.matrices import Blas
from mlxk_tui.ops.core.child_process import HOME
from mlxk_tui.ops.core.text import printable

_TRIAL_S = 8.0
"""Maximum duration of a trial; on an idle machine it takes a third of a second."""


@dataclass(frozen=True)
class InstalledBlas:
    """The result of `install_blas`."""

    blas: Blas | None = None
    """The library in use; None where MLX needs none, that is with a GPU or on systems other than Linux."""
    cores: ThreadLimiter | None = None
    """Limits the library's threads to the free cores; call its `update` regularly while there is work."""


def install_blas(trial_s: float = _TRIAL_S) -> InstalledBlas:
    """Bind the best available library into MLX. Call this once, before any other use of MLX.

    Args:
        trial_s: maximum duration of a library's trial, in seconds.
    """
    if not sys.platform.startswith("linux") or mx.default_device() != mx.Device(mx.cpu):
        return InstalledBlas()
    # Before any library is loaded: libraries and the trial read the environment when they start.
    variables = thread_variables(os.environ)
    os.environ.update(variables)
    libraries = find_libraries(os.environ)
    return _install_best(_with_trials(libraries, trial_s), limit_threads=bool(variables))


def _install_best(tried: Sequence[tuple[BlasLibrary, Trial]], *, limit_threads: bool) -> InstalledBlas:
    """Load and bind the best library, or the next best if it can no longer be loaded."""
    left = list(tried)
    cores: ThreadLimiter | None = None
    while (chosen := choose(left)) is not None:
        library = chosen[0]
        try:
            functions = load_functions(library.path)
            before = bind(functions.addresses)
            if not _multiplies_correctly():
                bind(before)
                raise BlasLibraryError("its products are wrong in this process")
            if limit_threads and functions.set_threads is not None:
                cores = ThreadLimiter(functions.set_threads)
            break
        except BlasLibraryError as error:
            left[left.index(chosen)] = (library, Trial(TrialVerdict.UNUSABLE, printable(str(error))))
    return InstalledBlas(describe(os.environ, left), cores)


def _multiplies_correctly() -> bool:
    """Return whether a product of small integers is exact."""
    left = mx.arange(12, dtype=mx.float32).reshape(3, 4)
    return bool((left @ left.T == (left[:, None] * left[None]).sum(axis=2)).all().item())


def _with_trials(libraries: Sequence[BlasLibrary], trial_s: float) -> list[tuple[BlasLibrary, Trial]]:
    """Return the libraries with their stored or new trials."""
    trials = TrialStore(version("mlx"))
    known = {library: trials.get(library) for library in libraries}
    if None in known.values():
        with trials.locked(trial_s * len(libraries)):
            trials.read()
            for library in libraries:
                if trials.get(library) is None:
                    trial = _run_trial(library, trial_s)
                    known[library] = trial
                    trials.put(library, trial)
                else:
                    known[library] = trials.get(library)
    trials.save()
    return [(library, trial) for library, trial in known.items() if trial is not None]


def _run_trial(library: BlasLibrary, trial_s: float) -> Trial:
    command = [sys.executable, "-m", f"{__package__}.trial", library.path, str(trial_s)]
    try:
        ended = subprocess.run(  # noqa: S603 - a module of this package
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
        result = json.loads(ended.stdout)
        numbers = [float(result.get(name, 0.0)) for name in ("gain", "speed")]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("not finite")
        detail = printable(str(result["detail"]))[:200]
        return Trial(TrialVerdict(result["verdict"]), detail, numbers[0], numbers[1], time.time())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Trial(TrialVerdict.DIED, _exit_reason(ended.returncode), at=time.time())


def _exit_reason(status: int) -> str:
    try:
        return signal.Signals(-status).name if status < 0 else f"status {status}"
    except ValueError:
        return f"signal {-status}"
