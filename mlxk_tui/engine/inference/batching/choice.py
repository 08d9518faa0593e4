"""Decides at load whether requests are batched: by the stored verdict, else by a trial."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import mlx.core as mx

from mlxk_tui.engine.inference.batching.trial import differs, try_batching
from mlxk_tui.engine.inference.weights.loading import LoadedModel, LoadStopped, OnStage, is_out_of_memory
from mlxk_tui.engine.protocol import BatchingMode
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.contract.terms import BatchingReason
from mlxk_tui.ops.health.batching_verdicts import (
    MAX_UNFINISHED,
    Arithmetic,
    BatchingTrial,
    BatchingVerdict,
    BatchingVerdicts,
    batching_key,
    model_key,
)

STAGE = "batching"
"""Name of the loading stage of the trial."""
_LOG = logging.getLogger("mlxk_tui.engine")


def choose_batching(
    model: LoadedModel,
    mode: BatchingMode,
    blas: Blas | None,
    on_stage: OnStage,
    on_trial: Callable[[BatchingTrial | None], None],
) -> BatchingVerdict | None:
    """Return whether requests are decoded as one batch; None if batching is not requested.

    Args:
        model: the loaded model.
        mode: whether to run a trial.
        blas: the BLAS library on a CPU; None on a GPU.
        on_stage: called before each step of a trial; may raise to stop loading.
        on_trial: receives the running trial and then None, so that the process can end it when it exits.

    Raises:
        LoadStopped: raised by `on_stage`.
    """
    if not model.batchable:
        return BatchingVerdict(False, BatchingReason.CACHE)
    if mode == "never":
        return None
    verdicts = BatchingVerdicts()
    config = _read_config(model)
    versions = version("mlx"), version("mlx-lm")
    arithmetic = Arithmetic(
        device="gpu" if mx.default_device() == mx.gpu else "cpu",
        weights=model.weight_format.kind.value if model.weight_format is not None else "",
        blas=(blas.library or "") if blas is not None and blas.state is BlasState.FAST else "",
    )
    key = batching_key(model_key(config, *versions), arithmetic)
    known = verdicts.get(key)
    unfinished = verdicts.pop_unfinished(key)
    if mode == "crashed":
        known = BatchingVerdict(False, BatchingReason.CRASHED)
    elif unfinished:
        unfinished += known.unfinished if known is not None else 0
        crashed = unfinished >= MAX_UNFINISHED
        reason = BatchingReason.CRASHED if crashed else BatchingReason.UNFINISHED
        known = BatchingVerdict(False, reason, unfinished=unfinished)
    elif known is not None and known.final:
        verdicts.touch(key)
        return known
    else:
        trial = verdicts.begin(key)
        on_trial(trial)
        try:
            found = _run_trial(model, on_stage)
        finally:
            trial.end()
            on_trial(None)
        if found is None:
            return BatchingVerdict(False, BatchingReason.UNFINISHED)  # not stored: memory ran out
        known = found
    about = {
        "model_type": str(config.get("model_type", "")),
        "mlx": versions[0],
        "mlx_lm": versions[1],
        **asdict(arithmetic),
    }
    verdicts.put(key, known, about)
    return known


def _run_trial(model: LoadedModel, on_stage: OnStage) -> BatchingVerdict | None:
    """Run a trial and return its verdict; None if memory ran out, so that there is none."""
    try:
        differences = try_batching(model, lambda: on_stage(STAGE, 0, 0))
    except LoadStopped:
        raise
    except Exception as error:  # noqa: BLE001 - mlx-lm may raise anything; requests would fail in the same way
        mx.clear_cache()
        if is_out_of_memory(error):
            return None
        _LOG.warning("batching failed for %s: %s: %s", model.name, type(error).__name__, error)
        return BatchingVerdict(False, BatchingReason.FAILED)
    largest = max((each.distance for each in differences), default=0.0)
    if differs(differences):
        return BatchingVerdict(False, BatchingReason.DIFFERENT, largest)
    return BatchingVerdict(True, None, largest)


def _read_config(model: LoadedModel) -> Mapping[str, Any]:
    try:
        content = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # unlikely: loading has just read it
        return {}
    return content if isinstance(content, Mapping) else {}
