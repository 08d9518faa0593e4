"""Selects a BLAS library by its trials, and explains the choice."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mlxk_tui.ops.blas.libraries import PACKAGE, VARIABLE, BlasLibrary, LibrarySource, find_libraries, is_off
from mlxk_tui.ops.blas.trials import Trial, TrialStore, TrialVerdict
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.core.text import printable

_CLEARLY_FASTER = 1.25
"""Factor by which a library must be faster to be preferred to earlier ones."""
_REMEDY = f"Install one with 'pip install {PACKAGE}'."
_REASONS = {
    TrialVerdict.UNUSABLE: "cannot be loaded",
    TrialVerdict.DIED: "crashes on this processor",
    TrialVerdict.WRONG: "gives wrong numbers",
    TrialVerdict.SLOW: "is not faster than MLX's own",
    TrialVerdict.HUNG: "does not finish",
}


def choose(tried: Sequence[tuple[BlasLibrary, Trial]]) -> tuple[BlasLibrary, Trial] | None:
    """Return the library to use: the named one if it is good, else the first unless one is much faster."""
    good = [(library, trial) for library, trial in tried if trial.verdict is TrialVerdict.GOOD]
    for library, trial in good:
        if library.source is LibrarySource.NAMED:
            return library, trial
    fastest = max((trial.speed for _, trial in good), default=0.0)
    return next((pair for pair in good if pair[1].speed * _CLEARLY_FASTER >= fastest), None)


def describe(environ: Mapping[str, str], tried: Sequence[tuple[BlasLibrary, Trial]]) -> Blas:
    """Return the state after all libraries have been tried."""
    if is_off(environ):
        return Blas(BlasState.BUILT_IN, message=f"MLX's own matrix product is used: {VARIABLE} is off.")
    chosen = choose(tried)
    named = environ.get(VARIABLE, "").strip()
    named_problem = ""
    if named:
        trial = next((trial for library, trial in tried if library.source is LibrarySource.NAMED), None)
        if trial is None:
            named_problem = f"{VARIABLE} names {printable(named)[:200]}, which does not exist. "
        elif trial.verdict is not TrialVerdict.GOOD:
            named_problem = f"{printable(named)[:200]} ({VARIABLE}) {_reason(trial)}. "
    if chosen is not None:
        library, trial = chosen
        faster = f"{trial.gain:.0f} times as fast as MLX's own product"
        message = f"{named_problem}Matrices are multiplied with {trial.detail}, {faster}."
        return Blas(BlasState.FAST, trial.detail, library.path, round(trial.gain, 1), message)
    faults = "; ".join(
        f"{library.name} {_reason(trial)}"
        for library, trial in tried
        if not (named_problem and library.source is LibrarySource.NAMED)
    )
    found = f"{faults}." if faults else "No fast BLAS library was found."
    has_package = any(library.source is LibrarySource.PACKAGE for library, _ in tried)
    remedy = f"Name another with {VARIABLE}." if has_package else _REMEDY
    message = f"Prompts are processed slowly, with MLX's own matrix product. {named_problem}{found} {remedy}"
    return Blas(BlasState.BUILT_IN, message=message)


def recorded_choice(mlx: str, environ: Mapping[str, str] | None = None) -> Blas:
    """Return the state by recorded trials, without trying any library."""
    env = os.environ if environ is None else environ
    libraries = find_libraries(env)
    trials = TrialStore(mlx, env)
    tried = [(library, trial) for library in libraries if (trial := trials.get(library)) is not None]
    if len(tried) < len(libraries):
        names = ", ".join(library.name for library in libraries)
        message = f"Found {names}; tried when the first model is loaded."
        return Blas(BlasState.UNTRIED, message=message)
    return describe(env, tried)


def _reason(trial: Trial) -> str:
    return f"{_REASONS[trial.verdict]} ({trial.detail})" if trial.detail else _REASONS[trial.verdict]
