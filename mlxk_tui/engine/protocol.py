"""What the engine's client and its worker process say to each other: one typed definition.

Both sides are of one version and trust each other; a message is one line of JSON. What it carries of a
generation is defined in `generation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mlxk_tui.engine.generation import Event, Generation
from mlxk_tui.ops.contract.matrices import Blas
from mlxk_tui.ops.contract.terms import BatchingReason, CpuWeights
from mlxk_tui.ops.core.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.core.remedies import NO_FACTS, ErrorFacts, Remedy

BatchingMode = Literal["try", "never", "crashed"]
"""Whether requests may be answered together: try it where it is not known, never as they come one by one, or
not as the last trial ended the worker."""


@dataclass(frozen=True)
class Load:
    """Command: load the model of a folder, unloading any other; answered by `Loaded` or `RequestFault`."""

    id: int
    name: str
    folder: str
    cache_bytes: int
    """Most bytes of kept prompt caches."""
    context_length: int | None = None
    """Tokens; None leaves it to config.json."""
    cpu_weights: CpuWeights = CpuWeights.AUTO
    """How the weights are held where there is no GPU."""
    batching: BatchingMode = "try"


@dataclass(frozen=True)
class Unload:
    """Command: free the model; answered by `Done`."""

    id: int


@dataclass(frozen=True)
class Generate:
    """Command: generate; answered by events, the last one `Finished` or `RequestFault`."""

    id: int
    request: Generation


@dataclass(frozen=True)
class Cancel:
    """Command: end a generation at its next step; it is answered by its `Finished`."""

    id: int
    """The generation's."""


@dataclass(frozen=True)
class CountTokens:
    """Command: count the tokens of a conversation as a prompt; answered by `Counted`."""

    id: int
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tokenize:
    """Command: turn a text or a conversation into tokens; answered by `Tokenized`."""

    id: int
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    """A conversation, where no text is given."""
    tools: tuple[Mapping[str, Any], ...] = ()
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    add_special: bool = True
    """Let the tokenizer add its own special tokens, such as a begin of sequence."""
    opens_answer: bool = True
    """End a conversation with the opening of an answer."""
    names: bool = False
    """Report the tokens by their names in the vocabulary, too."""


@dataclass(frozen=True)
class Detokenize:
    """Command: turn tokens into text; answered by `Detokenized`."""

    id: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Embed:
    """Command: turn texts into vectors; answered by `Embedded`."""

    id: int
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """First words of a worker."""

    mlx: str
    """Version of MLX."""
    mlx_lm: str
    device: str
    """`gpu` or `cpu`."""
    blas: Blas | None = None
    """How matrices are multiplied on Linux without a GPU."""


@dataclass(frozen=True)
class Loaded:
    """Answer: the model is there."""

    id: int
    context_length: int
    """Tokens; 0 where the model names none."""
    vocab_size: int
    memory_bytes: int
    """Memory that MLX uses with the model loaded."""
    load_s: float
    has_chat_template: bool
    has_thinking: bool
    has_tools: bool
    weights: CpuWeights | None = None
    """How the weights are held on a CPU: `float32` or `stored`; None on a GPU."""
    stored_bytes: int = 0
    """Then what they take as stored."""
    weights_fault: str = ""
    """What the model's code raised with its weights held otherwise, where they are as stored for that."""
    batched: bool = False
    """Whether several requests are answered together; otherwise they take turns."""
    in_turn: BatchingReason | None = None
    """Why they take turns; None also where nobody asked for more than one at a time."""


@dataclass(frozen=True)
class Done:
    """Answer: done."""

    id: int


@dataclass(frozen=True)
class Counted:
    """Answer: so many tokens."""

    id: int
    tokens: int


@dataclass(frozen=True)
class Tokenized:
    """Answer: the tokens."""

    id: int
    tokens: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Detokenized:
    """Answer: the text."""

    id: int
    text: str


@dataclass(frozen=True)
class Embedded:
    """Answer: the vectors, one for each text."""

    id: int
    size: int
    """Numbers in a vector."""
    data: str
    """All numbers, 32-bit little-endian, as Base64."""
    tokens: int
    """Of all texts."""


@dataclass(frozen=True)
class RequestFault:
    """Answer: it failed; `id` 0 is the worker itself, which then leaves."""

    id: int
    type: str
    """A value of `ErrorType`."""
    message: str
    overflow: ContextOverflow | None = None
    """With `context_length_exceeded`."""
    remedy: Remedy | None = None
    facts: ErrorFacts = NO_FACTS

    @staticmethod
    def of(id: int, error: OpError) -> RequestFault:  # noqa: A002 - the protocol's own name
        """Return an error as the worker tells it."""
        return RequestFault(id, error.type.value, error.message, error.overflow, error.remedy, error.facts)

    @property
    def error(self) -> OpError:
        """The error as it was raised in the worker."""
        return OpError(
            ErrorType(self.type),
            self.message,
            remedy=self.remedy,
            facts=self.facts,
            overflow=self.overflow,
        )


@dataclass(frozen=True)
class Heartbeat:
    """The worker lives, and how it gets on; sent every second of work, after changes, and when asked.

    A thread of its own sends it while the MLX thread is inside a step. The counters only grow, and only
    mean something compared with an earlier heartbeat.
    """

    memory_bytes: int = 0
    """What MLX holds, its own pool of freed buffers not counted."""
    cache_bytes: int = 0
    """Kept prompt caches, part of `memory_bytes`."""
    tokens_per_s: float = 0.0
    """Over all streams, the last second or so."""
    streams: int = 0
    step: int = 0
    """Number of the piece of work that the MLX thread has in hand, or had last."""
    expected_s: float = 0.0
    """How long that piece should take, in seconds; 0 at rest."""
    reads_files: bool = False
    """Whether it reads files, so that bytes read are progress."""
    cpu_s: float = 0.0
    """Processor time of the process in seconds, without the threads that listen, prepare and beat."""
    disk: int = 0
    """Blocks that were read from a disk, and page faults that needed one."""
    device: int = 0
    """Changes of what the device holds: counted once a heartbeat."""
    tokenizing_bytes: int = 0
    """Memory that the processes which read prompts have for themselves."""


@dataclass(frozen=True)
class Ping:
    """Asks for a `Heartbeat`."""


@dataclass(frozen=True)
class Streamed:
    """An event of a generation."""

    id: int
    event: Event


Command: TypeAlias = Load | Unload | Generate | Cancel | CountTokens | Tokenize | Detokenize | Embed
"""What the client says to the MLX thread."""
Message: TypeAlias = (
    Ready | Loaded | Done | Counted | Tokenized | Detokenized | Embedded | RequestFault | Heartbeat | Streamed
)
"""What the worker says."""
