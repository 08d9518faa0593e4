"""What the engine's client and its worker process say to each other: one typed definition.

Both sides are of one version and trust each other; a message is one line of JSON. `Generation` and
the events of a stream are also what panes, commands and the server see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from mlxk_tui.ops.blas.state import Blas
from mlxk_tui.ops.errors import ContextOverflow, ErrorType, OpError
from mlxk_tui.ops.terms import BatchingReason, CpuWeights

GrammarSyntax = Literal["json_schema", "llguidance"]
BatchingMode = Literal["try", "never", "crashed"]
"""Whether requests may be answered together: try it where it is not known, never as they come one by one, or
not as the last trial ended the worker."""
Budget = Literal["run", "server"]
"""Who asks: `run` may use all that is left of the context, `server` half of it."""


class FinishReason(str, Enum):
    """Why a generation ended; the words of the OpenAI API, and `cancelled`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; None leaves a value to generation_config.json, then to mlx-lm."""

    temperature: float | None = None
    """0 is greedy."""
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    """0 is all tokens."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id to what is added to its logit."""
    seed: int | None = None
    """Makes an answer repeatable on this machine; a seeded request draws with a key of its own."""


@dataclass(frozen=True)
class Generation:
    """One request; exactly one of `messages`, `prompt` and `tokens` is given."""

    messages: tuple[Mapping[str, Any], ...] | None = None
    """A conversation in OpenAI's shape: role, content (text), reasoning_content, tool_calls, tool_call_id."""
    prompt: str | None = None
    """Text to go on with, taken as it is."""
    tokens: tuple[int, ...] | None = None
    """Token ids to go on with."""
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """Most tokens to generate; None leaves it to `budget`."""
    budget: Budget = "run"
    stop: tuple[str, ...] = ()
    """Texts that end the answer, and are not part of it."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools in OpenAI's shape, for the chat template."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """More variables for the chat template, such as `enable_thinking`."""
    chat_template: bool = True
    """False puts messages together plainly, as where a model has no template."""
    logprobs: int | None = None
    """Top tokens to report with each token, 0 to 20; None reports none."""
    want_tokens: bool = False
    """Report token ids."""
    echo: bool = False
    """Repeat the prompt (text or tokens) before the answer; with `logprobs`, with its own log-probabilities,
    read outside the batch and without the prompt cache. Then `max_tokens` may be 0."""
    grammar: str | None = None
    """What the answer must follow: a JSON schema as text, `{}` being any JSON object."""
    grammar_syntax: GrammarSyntax = "json_schema"
    """How `grammar` is written; `llguidance` is that library's JSON of several grammars."""
    forced_call: bool = False
    """Whether `grammar` makes the answer a tool call, which whoever asked reads (`cut_calls.forced_call`)."""
    draft_model: str | None = None
    """Folder of a smaller model with the same tokenizer that guesses ahead; decoded outside the batch."""
    kv_bits: int | None = None
    """Bits of the KV cache (4 or 8); decoded outside the batch."""


@dataclass(frozen=True)
class ToolCall:
    """A tool call of an answer."""

    index: int
    id: str
    name: str
    arguments: str
    """JSON; the beginning of it, maybe empty, where it is `cut`."""
    cut: bool = False
    """Whether the answer reached its most tokens inside this call."""


RESERVED_VARIABLES = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "chat_template", "tokenize", "return_dict"),
        *("add_generation_prompt", "continue_final_message", "padding", "truncation", "max_length"),
        *("return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    }
)
"""Variables of a chat template that no request may set: Transformers' `apply_chat_template` takes them."""


@dataclass(frozen=True)
class TopToken:
    """A token that might have been drawn."""

    id: int
    text: str
    logprob: float
    raw: tuple[int, ...] = ()
    """Its bytes, where they are no text: a part of a character."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token that was drawn, with how likely it was (natural logarithm) before sampling."""

    id: int
    text: str
    logprob: float | None = None
    """None for the first token of a prompt, which follows nothing."""
    top: tuple[TopToken, ...] = ()
    """The likeliest, first first."""
    raw: tuple[int, ...] = ()
    """Its bytes, where they are no text: a part of a character."""
    offset: int = 0
    """Characters from the beginning of the prompt to where its text begins."""


@dataclass(frozen=True)
class Usage:
    """Counted tokens."""

    prompt_tokens: int
    """All of the prompt, the cached ones included."""
    cached_tokens: int
    """Those of the prompt that needed no prefill."""
    completion_tokens: int
    """All that was generated, an end-of-turn token included."""
    reasoning_tokens: int
    """Those of the completion that are reasoning."""


@dataclass(frozen=True)
class Timings:
    """Where the time went, in seconds; rates in tokens per second."""

    queued_s: float
    """From the request to its first prefill step."""
    time_to_first_token_s: float
    """From the request, loading included."""
    prompt_s: float
    generation_s: float
    prompt_tps: float
    generation_tps: float
    peak_memory_bytes: int
    load_s: float = 0.0
    """Time spent loading the model for this request."""


@dataclass(frozen=True)
class Loading:
    """The model is being loaded first."""

    stage: str
    """`start`, `import`, `weights`, `tokenizer`, `warm-up` or `batching`."""
    done: int
    """Bytes."""
    total: int
    """Bytes; 0 while unknown."""


@dataclass(frozen=True)
class Started:
    """The request is valid and queued."""

    prompt_tokens: int
    cached_tokens: int
    max_tokens: int
    context_length: int
    """Tokens; 0 where the model names none."""


@dataclass(frozen=True)
class Prefill:
    """Part of a long prompt has been read."""

    done: int
    """Tokens, cached ones included."""
    total: int


@dataclass(frozen=True)
class Delta:
    """More of the answer: reasoning, then text, then tool calls; any of them may be empty."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: int = 0
    """Tokens generated since the last delta, also those whose text is held back."""
    token_ids: tuple[int, ...] = ()
    """With `want_tokens`."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """With `logprobs`."""


@dataclass(frozen=True)
class Finished:
    """The last event of a stream."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    stop_string: str | None = None
    """The one of `stop` that ended the answer."""


Event: TypeAlias = Loading | Started | Prefill | Delta | Finished
"""What `Engine.generate` yields, in this order."""


@dataclass(frozen=True)
class Load:
    """Command: load the model of a folder, unloading any other; answered by `Loaded` or `Fault`."""

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
    """Command: generate; answered by events, the last one `Finished` or `Fault`."""

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
class Fault:
    """Answer: it failed; `id` 0 is the worker itself, which then leaves."""

    id: int
    type: str
    """A value of `ErrorType`."""
    message: str
    overflow: ContextOverflow | None = None
    """With `context_length_exceeded`."""

    @staticmethod
    def of(id: int, error: OpError) -> Fault:  # noqa: A002 - the protocol's own name
        """Return an error as the worker tells it."""
        return Fault(id, error.type.value, error.message, error.overflow)

    @property
    def error(self) -> OpError:
        """The error as it was raised in the worker."""
        return OpError(ErrorType(self.type), self.message, overflow=self.overflow)


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
    Ready | Loaded | Done | Counted | Tokenized | Detokenized | Embedded | Fault | Heartbeat | Streamed
)
"""What the worker says."""
