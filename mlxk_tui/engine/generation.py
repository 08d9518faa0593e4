"""A request to a model and the events of its answer: what panes, commands and the server see of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

GrammarSyntax = Literal["json_schema", "llguidance"]
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
    draft_name: str | None = None
    """Its name in error messages; the folder's own where there is none."""
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
class TokenUsage:
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
class GenerationTimings:
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
    """`start`, `import`, `weights`, `warm-up`, `tokenizer` or `batching`."""
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
    usage: TokenUsage
    timings: GenerationTimings
    stop_string: str | None = None
    """The one of `stop` that ended the answer."""


Event: TypeAlias = Loading | Started | Prefill | Delta | Finished
"""What `Engine.generate` yields, in this order."""
