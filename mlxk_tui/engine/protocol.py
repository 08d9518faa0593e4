"""The messages between the engine's client and its worker process, as dataclasses.

Each message is one line of JSON. Both sides are of the same version and trust each other. Generation
requests and their events are defined in `generation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mlxk_tui.engine.generation import Event, GenerationRequest
from mlxk_tui.ops.contract.matrices import Blas
from mlxk_tui.ops.contract.terms import BatchingReason, CpuWeights
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import NO_FACTS, ErrorFacts, Remedy

BatchingMode = Literal["try", "never", "crashed"]
"""Whether to decode requests as one batch: `try` runs a trial if no verdict is stored, `never` skips it
because requests come one at a time, `crashed` disables batching because the last trial ended the worker."""


@dataclass(frozen=True)
class Load:
    """Command: load the model in a folder, unloading any other; answered by `Loaded` or `RequestFailed`."""

    id: int
    name: str
    folder: str
    cache_bytes: int
    """Maximum size of the prompt cache, in bytes."""
    context_length: int | None = None
    """In tokens; None takes it from config.json."""
    cpu_weights: CpuWeights = CpuWeights.AUTO
    """How to store the weights if there is no GPU."""
    batching: BatchingMode = "try"


@dataclass(frozen=True)
class Unload:
    """Command: unload the model; answered by `Done`."""

    id: int


@dataclass(frozen=True)
class Generate:
    """Command: generate text; answered by `Streamed` events, the last one `Finished`, or `RequestFailed`."""

    id: int
    request: GenerationRequest


@dataclass(frozen=True)
class Cancel:
    """Command: cancel a request. A generation ends at its next step and still sends its `Finished`."""

    id: int
    """Id of the request to cancel."""


@dataclass(frozen=True)
class CountTokens:
    """Command: count the prompt tokens of a conversation; answered by `Counted`."""

    id: int
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokenize:
    """Command: tokenize a text or a conversation; answered by `Tokenized`."""

    id: int
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    """The conversation, if `text` is None."""
    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    add_special_tokens: bool = True
    """Let the tokenizer add its special tokens to a text, such as BOS."""
    add_generation_prompt: bool = True
    """Append the template's generation prompt to a conversation."""
    return_token_strs: bool = False
    """Also return the tokens as strings of the vocabulary."""


@dataclass(frozen=True)
class Detokenize:
    """Command: decode tokens; answered by `Detokenized`."""

    id: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Embed:
    """Command: compute the embeddings of texts; answered by `Embedded`."""

    id: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """Message: the worker has started and accepts work."""

    mlx: str
    """Version of MLX."""
    mlx_lm: str
    """Version of mlx-lm."""
    device: str
    """`gpu` or `cpu`."""
    blas: Blas | None = None
    """The BLAS library in use on Linux without a GPU."""


@dataclass(frozen=True)
class Loaded:
    """Reply to `Load`: the model is ready."""

    id: int
    context_length: int
    """In tokens; 0 if config.json has none."""
    vocab_size: int
    memory_bytes: int
    """Memory that MLX uses after loading."""
    load_s: float
    has_chat_template: bool
    has_thinking: bool
    has_tools: bool
    weights: CpuWeights | None = None
    """How the weights are stored on a CPU: `float32` or `stored`; None on a GPU."""
    stored_bytes: int = 0
    """Size of the weights in the file's format, on a CPU."""
    weights_error: str = ""
    """The error that made the worker fall back to unconverted weights; empty if there was none."""
    batched: bool = False
    """Whether concurrent requests are decoded as one batch; otherwise they take turns."""
    unbatched_reason: BatchingReason | None = None
    """Why requests take turns; None if they are batched, or if batching was not requested."""


@dataclass(frozen=True)
class Done:
    """Reply to `Unload`."""

    id: int


@dataclass(frozen=True)
class Counted:
    """Reply to `CountTokens`."""

    id: int
    tokens: int


@dataclass(frozen=True)
class Tokenized:
    """Reply to `Tokenize`."""

    id: int
    tokens: tuple[int, ...] = ()
    """Token ids."""
    token_strs: tuple[str, ...] = ()
    """The same tokens as strings of the vocabulary, if requested."""


@dataclass(frozen=True)
class Detokenized:
    """Reply to `Detokenize`."""

    id: int
    text: str


@dataclass(frozen=True)
class Embedded:
    """Reply to `Embed`: one vector for each text."""

    id: int
    size: int
    """Dimension of a vector."""
    data: str
    """All vectors, (texts, size), as little-endian float32 in Base64."""
    tokens: int
    """Number of tokens of all texts."""


@dataclass(frozen=True)
class RequestFailed:
    """Reply: the request failed. With `id` 0 the worker itself failed and is about to exit."""

    id: int
    type: str
    """A value of `ErrorType`."""
    message: str
    overflow: ContextOverflow | None = None
    """Set with `context_length_exceeded`."""
    remedy: Remedy | None = None
    facts: ErrorFacts = NO_FACTS

    @staticmethod
    def from_error(id: int, error: OpError) -> RequestFailed:  # noqa: A002 - the name in the protocol
        """Return the message for an error of a request."""
        return RequestFailed(id, error.type.value, error.message, error.overflow, error.remedy, error.facts)

    @property
    def error(self) -> OpError:
        """The error that was raised in the worker."""
        return OpError(
            ErrorType(self.type),
            self.message,
            remedy=self.remedy,
            facts=self.facts,
            overflow=self.overflow,
        )


@dataclass(frozen=True)
class Heartbeat:
    """Message: the worker's progress; sent every second while it is busy, after changes, and on `Ping`.

    A separate thread sends it, also while the MLX thread is inside a step. The counters (`cpu_s`, `disk`,
    `device`) only grow; compare them with an earlier heartbeat.
    """

    memory_bytes: int = 0
    """Active memory of MLX (`mx.get_active_memory`), without its cache of freed buffers."""
    cache_bytes: int = 0
    """Size of the prompt cache, part of `memory_bytes`."""
    tokens_per_s: float = 0.0
    """Rate of all streams together, over the last second or so."""
    streams: int = 0
    """Running generations."""
    step: int = 0
    """Number of the current or last step of the MLX thread."""
    expected_s: float = 0.0
    """Expected duration of that step, in seconds; 0 while idle."""
    reads_files: bool = False
    """Whether the step reads files, so that bytes read count as progress."""
    cpu_s: float = 0.0
    """Processor time of the process in seconds, without the reader, preparation and heartbeat threads."""
    disk: int = 0
    """Blocks read from a disk, plus major page faults."""
    device: int = 0
    """How often the device's memory numbers had changed, sampled once per heartbeat."""
    tokenizing_bytes: int = 0
    """Memory of the tokenizer processes, not counting what they share with the worker."""


@dataclass(frozen=True)
class Ping:
    """Command: send a `Heartbeat` now."""


@dataclass(frozen=True)
class Streamed:
    """Message: an event of a generation, or the progress of a `Load`."""

    id: int
    event: Event


Command: TypeAlias = Load | Unload | Generate | Cancel | CountTokens | Tokenize | Detokenize | Embed
"""Sent by the client to the MLX thread."""
Message: TypeAlias = (
    Ready
    | Loaded
    | Done
    | Counted
    | Tokenized
    | Detokenized
    | Embedded
    | RequestFailed
    | Heartbeat
    | Streamed
)
"""Sent by the worker."""
