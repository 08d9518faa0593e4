"""What `serve` logs about the engine on a machine without a GPU."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from mlxk_tui.engine.status import EngineState, EngineStatus, ModelStatus
from mlxk_tui.ops.contract.matrices import Blas, BlasState
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui_headless.serving.serve import _EngineLog

MODEL = ModelStatus(
    name="mlx-community/Picky-4bit",
    folder="/models/picky",
    context_length=4096,
    vocab_size=32_000,
    memory_bytes=84_200_000,
    load_s=1.0,
    has_chat_template=True,
    has_thinking=False,
    has_tools=False,
    weights=CpuWeights.STORED,
    stored_bytes=84_200_000,
)


def status(model: ModelStatus | None, blas: Blas | None = None) -> EngineStatus:
    return EngineStatus(state=EngineState.READY, model=model, blas=blas)


def test_weights_that_could_not_be_converted_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = _EngineLog()
    log.on_status(status(replace(MODEL, weights_error="AttributeError: scales")))
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "mlx-community/Picky-4bit cannot use the cpu_weights setting (AttributeError: scales): "
        "its weights are held as stored, 84.2 MB."
    )
    log.on_status(status(replace(MODEL, weights_error="AttributeError: scales")))
    assert len(caplog.records) == 1  # only what changes is logged


def test_converted_and_stored_weights_are_information(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = _EngineLog()
    log.on_status(status(MODEL))
    log.on_status(status(replace(MODEL, weights=CpuWeights.FLOAT32, memory_bytes=538_000_000)))
    assert [record.getMessage() for record in caplog.records] == [
        "Weights of mlx-community/Picky-4bit: as stored, 84.2 MB.",
        "Weights of mlx-community/Picky-4bit: float32, 538 MB (stored: 84.2 MB).",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_a_slow_matrix_library_is_a_warning_and_a_fast_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = _EngineLog()
    log.on_status(status(None, Blas(BlasState.BUILT_IN, message="Prompts are read slowly.")))
    log.on_status(status(None, Blas(BlasState.FAST, message="OpenBLAS multiplies.")))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "Prompts are read slowly."),
        (logging.INFO, "OpenBLAS multiplies."),
    ]
