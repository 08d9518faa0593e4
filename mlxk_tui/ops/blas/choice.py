"""Which library is taken, and what to say where none is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mlxk_tui.ops.blas.libraries import PACKAGE, VARIABLE, BlasLibrary, LibrarySource, find_libraries, is_off
from mlxk_tui.ops.blas.trials import Trial, Trials, Verdict
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.core.text import printable

_CLEARLY_FASTER = 1.25
"""A library is taken before those that come first by this much more speed."""
_REMEDY = f"Install one with 'pip install {PACKAGE}'."
_WORDS = {
    Verdict.UNUSABLE: "cannot be loaded",
    Verdict.DIED: "crashes on this processor",
    Verdict.WRONG: "gives wrong numbers",
    Verdict.SLOW: "is not faster than MLX's own",
    Verdict.HUNG: "does not finish",
}


def choose(tried: Sequence[tuple[BlasLibrary, Trial]]) -> tuple[BlasLibrary, Trial] | None:
    """Return the library to take: the named one if it is good, else the first unless one is much faster."""
    good = [(library, trial) for library, trial in tried if trial.verdict is Verdict.GOOD]
    for library, trial in good:
        if library.source is LibrarySource.NAMED:
            return library, trial
    fastest = max((trial.speed for _, trial in good), default=0.0)
    return next((pair for pair in good if pair[1].speed * _CLEARLY_FASTER >= fastest), None)


def describe(environ: Mapping[str, str], tried: Sequence[tuple[BlasLibrary, Trial]]) -> Blas:
    """Return what came of it when all libraries that there are have been tried."""
    if is_off(environ):
        return Blas(BlasState.BUILT_IN, message=f"MLX's own matrix product is used: {VARIABLE} is off.")
    chosen = choose(tried)
    named = environ.get(VARIABLE, "").strip()
    missed = ""
    if named:
        trial = next((trial for library, trial in tried if library.source is LibrarySource.NAMED), None)
        if trial is None:
            missed = f"{VARIABLE} names {printable(named)[:200]}, which is not there. "
        elif trial.verdict is not Verdict.GOOD:
            missed = f"{printable(named)[:200]} ({VARIABLE}) {_reason(trial)}. "
    if chosen is not None:
        library, trial = chosen
        faster = f"{trial.gain:.0f} times as fast as MLX's own product"
        message = f"{missed}Matrices are multiplied with {trial.detail}, {faster}."
        return Blas(BlasState.FAST, trial.detail, library.path, round(trial.gain, 1), message)
    faults = "; ".join(
        f"{library.name} {_reason(trial)}"
        for library, trial in tried
        if not (missed and library.source is LibrarySource.NAMED)
    )
    found = f"{faults}." if faults else "There is no fast BLAS library."
    has_package = any(library.source is LibrarySource.PACKAGE for library, _ in tried)
    remedy = f"Name another with {VARIABLE}." if has_package else _REMEDY
    message = f"Prompts are read slowly, with MLX's own matrix product. {missed}{found} {remedy}"
    return Blas(BlasState.BUILT_IN, message=message)


def remembered(mlx: str, environ: Mapping[str, str] | None = None) -> Blas:
    """Return what is known without trying anything."""
    env = os.environ if environ is None else environ
    libraries = find_libraries(env)
    trials = Trials(mlx, env)
    tried = [(library, trial) for library in libraries if (trial := trials.get(library)) is not None]
    if len(tried) < len(libraries):
        names = ", ".join(library.name for library in libraries)
        message = f"Found {names}: tried when the first model is loaded."
        return Blas(BlasState.UNTRIED, message=message)
    return describe(env, tried)


def _reason(trial: Trial) -> str:
    return f"{_WORDS[trial.verdict]} ({trial.detail})" if trial.detail else _WORDS[trial.verdict]
