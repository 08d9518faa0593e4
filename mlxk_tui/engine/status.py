"""What the engine is doing, for headers and health answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxk_tui.engine.protocol import Loaded
    from mlxk_tui.ops.contract.matrices import Blas
    from mlxk_tui.ops.contract.terms import BatchingReason, CpuWeights
    from mlxk_tui.ops.core.errors import OpError


class EngineState(str, Enum):
    """What the engine is doing."""

    STOPPED = "stopped"
    """No worker runs: not yet, or for good."""
    STARTING = "starting"
    IDLE = "idle"
    """A worker runs and no model is loaded."""
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    """The worker ended by itself; the next request starts another."""


@dataclass(frozen=True)
class ModelStatus:
    """The model in memory."""

    name: str
    folder: str
    context_length: int
    """Tokens; 0 where the model names none."""
    vocab_size: int
    memory_bytes: int
    """What MLX held when it was loaded."""
    load_s: float
    has_chat_template: bool
    has_thinking: bool
    has_tools: bool
    weights: CpuWeights | None = None
    """How its weights are held on a CPU; None on a GPU."""
    stored_bytes: int = 0
    """Then what they take as stored."""
    weights_fault: str = ""
    """What the model's code raised with its weights held otherwise, where they are as stored for that."""
    batched: bool = False
    """Whether several requests are answered together; otherwise they take turns."""
    in_turn: BatchingReason | None = None
    """Why they take turns; None also where nobody asked for more than one at a time."""

    @classmethod
    def of(cls, name: str, folder: str, said: Loaded) -> ModelStatus:
        """Return what a worker tells of a model."""
        return cls(
            name=name,
            folder=folder,
            context_length=said.context_length,
            vocab_size=said.vocab_size,
            memory_bytes=said.memory_bytes,
            load_s=said.load_s,
            has_chat_template=said.has_chat_template,
            has_thinking=said.has_thinking,
            has_tools=said.has_tools,
            weights=said.weights,
            stored_bytes=said.stored_bytes,
            weights_fault=said.weights_fault,
            batched=said.batched,
            in_turn=said.in_turn,
        )


@dataclass(frozen=True)
class EngineStatus:
    """One look at the engine."""

    state: EngineState = EngineState.STOPPED
    model: ModelStatus | None = None
    loading: str | None = None
    """Name of the model that is being loaded."""
    loading_done: int = 0
    """Bytes of its weights that have been read."""
    loading_total: int = 0
    """Bytes of all its weights; 0 while unknown."""
    streams: int = 0
    """Generations that run."""
    waiting: int = 0
    """Requests that wait for another model's streams to end, or for theirs to load."""
    tokens_per_s: float = 0.0
    """Over all streams, the last second or so."""
    memory_bytes: int = 0
    """What MLX holds now, kept prompt caches included."""
    tokenizing_bytes: int = 0
    """What the processes that read prompts have for themselves, beside that."""
    last_error: OpError | None = None
    """The last crash or failed load; None after a success."""
    pid: int | None = None
    """The worker process."""
    unresponsive: bool = False
    """Its process has stood still for seconds while it had work; it is ended soon, unless it goes on."""
    blas: Blas | None = None
    """How the last worker multiplied matrices; None before one was ready, and where MLX's own way is fast."""
