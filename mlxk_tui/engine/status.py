"""The status of the engine, for status lines and health checks."""

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
    """The state of the engine."""

    STOPPED = "stopped"
    """No worker has been started yet, or the engine was stopped."""
    STARTING = "starting"
    """The worker is starting for a load."""
    IDLE = "idle"
    """The worker runs and no model is loaded."""
    LOADING = "loading"
    READY = "ready"
    """A model is loaded."""
    FAILED = "failed"
    """The worker crashed; the next request starts a new one."""


@dataclass(frozen=True)
class ModelStatus:
    """The model in memory."""

    name: str
    folder: str
    context_length: int
    """In tokens; 0 if config.json has none."""
    vocab_size: int
    memory_bytes: int
    """Memory that MLX used after loading."""
    load_s: float
    has_chat_template: bool
    has_thinking: bool
    has_tools: bool
    weights: CpuWeights | None = None
    """How the weights are stored on a CPU; None on a GPU."""
    stored_bytes: int = 0
    """Size of the weights in the file's format, on a CPU."""
    weights_error: str = ""
    """The error that made the worker fall back to unconverted weights; empty if there was none."""
    batched: bool = False
    """Whether concurrent requests are decoded as one batch; otherwise they take turns."""
    unbatched_reason: BatchingReason | None = None
    """Why requests take turns; None if they are batched, or if batching was not requested."""

    @classmethod
    def from_loaded(cls, name: str, folder: str, loaded: Loaded) -> ModelStatus:
        """Return the status of a model from the worker's reply."""
        return cls(
            name=name,
            folder=folder,
            context_length=loaded.context_length,
            vocab_size=loaded.vocab_size,
            memory_bytes=loaded.memory_bytes,
            load_s=loaded.load_s,
            has_chat_template=loaded.has_chat_template,
            has_thinking=loaded.has_thinking,
            has_tools=loaded.has_tools,
            weights=loaded.weights,
            stored_bytes=loaded.stored_bytes,
            weights_error=loaded.weights_error,
            batched=loaded.batched,
            unbatched_reason=loaded.unbatched_reason,
        )


@dataclass(frozen=True)
class EngineStatus:
    """A snapshot of the engine's state."""

    state: EngineState = EngineState.STOPPED
    model: ModelStatus | None = None
    loading: str | None = None
    """Name of the model that is being loaded."""
    loading_done: int = 0
    """Bytes of its weights that have been loaded."""
    loading_total: int = 0
    """Bytes of all its weights; 0 while unknown."""
    streams: int = 0
    """Running generations."""
    waiting: int = 0
    """Requests that wait for another model's streams to end, or for their model to load."""
    tokens_per_s: float = 0.0
    """Rate of all streams together, over the last second or so."""
    memory_bytes: int = 0
    """Active memory of MLX, including the prompt cache."""
    tokenizing_bytes: int = 0
    """Memory of the tokenizer processes, in addition to `memory_bytes`."""
    last_error: OpError | None = None
    """The last crash or failed load; None after a successful load."""
    pid: int | None = None
    """Process id of the worker."""
    unresponsive: bool = False
    """The worker has made no progress for seconds although it has work; if that lasts, it is killed."""
    blas: Blas | None = None
    """The BLAS library of the worker; None until a worker is ready, and where MLX needs no other library."""
