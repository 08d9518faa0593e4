"""Generation requests and the events of their streams, as panes, commands and the server use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

GrammarSyntax = Literal["json_schema", "llguidance"]
Budget = Literal["run", "server"]
"""Default of `max_tokens`: `run` may use the rest of the context, `server` at most half of the context."""


class FinishReason(str, Enum):
    """Why a generation ended: the values of the OpenAI API, plus `cancelled`."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters; None takes the value of generation_config.json, else mlx-lm's default."""

    temperature: float | None = None
    """0 means greedy decoding."""
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_k: int | None = None
    """0 means all tokens."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id to the value that is added to its logit."""
    seed: int | None = None
    """Makes an answer reproducible on this machine; a seeded request has its own random key."""


@dataclass(frozen=True)
class GenerationRequest:
    """One request. Set exactly one of `messages`, `prompt` and `tokens`."""

    messages: tuple[Mapping[str, Any], ...] | None = None
    """A conversation in OpenAI's format: role, content (text), reasoning_content, tool_calls and
    tool_call_id."""
    prompt: str | None = None
    """Text to complete, without a chat template."""
    tokens: tuple[int, ...] | None = None
    """Token ids to complete."""
    sampling: SamplingParams = SamplingParams()
    max_tokens: int | None = None
    """Maximum number of tokens to generate; None takes the default of `budget`."""
    budget: Budget = "run"
    stop: tuple[str, ...] = ()
    """Stop sequences; they end the answer and are not part of it."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools in OpenAI's format, for the chat template."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Additional variables for the chat template, such as `enable_thinking`."""
    chat_template: bool = True
    """False formats messages as a plain transcript, as for a model without a template."""
    logprobs: int | None = None
    """Number of top tokens to return with each token, 0 to 20; None returns no log-probabilities."""
    return_token_ids: bool = False
    """Return token ids."""
    echo: bool = False
    """Return the prompt (text or tokens) before the answer. With `logprobs` its tokens get log-probabilities;
    such a prompt is prefilled outside the batch and without the prompt cache. `max_tokens` may then be 0."""
    grammar: str | None = None
    """Grammar that constrains the answer: a JSON schema as text, where `{}` is any JSON object."""
    grammar_syntax: GrammarSyntax = "json_schema"
    """Syntax of `grammar`; `llguidance` is the library's JSON format for a list of grammars."""
    forced_call: bool = False
    """Whether `grammar` forces a tool call; the caller parses the text with `parse_forced_call`."""
    draft_model: str | None = None
    """Folder of a draft model with the same tokenizer, for speculative decoding outside the batch."""
    draft_name: str | None = None
    """Name of the draft model in error messages; None takes the folder's name."""
    kv_bits: int | None = None
    """Bits of a quantized KV cache (4 or 8); the request is decoded outside the batch."""


@dataclass(frozen=True)
class ToolCall:
    """A tool call of an answer."""

    index: int
    """Position among the calls of the answer, from 0."""
    id: str
    name: str
    arguments: str
    """A JSON object as text; only its beginning, possibly empty, if `truncated` is set."""
    truncated: bool = False
    """Whether the answer reached its token budget inside this call."""


RESERVED_VARIABLES = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "chat_template", "tokenize", "return_dict"),
        *("add_generation_prompt", "continue_final_message", "padding", "truncation", "max_length"),
        *("return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    }
)
"""Chat template variables that no request may set: they are arguments of Transformers'
`apply_chat_template`."""


@dataclass(frozen=True)
class TopToken:
    """One of the most likely tokens at a position."""

    id: int
    text: str
    logprob: float
    """Natural logarithm of the probability."""
    raw: tuple[int, ...] = ()
    """The token's bytes, if they are not valid UTF-8: a part of a character."""


@dataclass(frozen=True)
class TokenLogprob:
    """A sampled token with its log-probability (natural logarithm) before sampling."""

    id: int
    text: str
    logprob: float | None = None
    """None for the first token of a prompt, which has no context."""
    top: tuple[TopToken, ...] = ()
    """The most likely tokens at this position, in descending order."""
    raw: tuple[int, ...] = ()
    """The token's bytes, if they are not valid UTF-8: a part of a character."""
    offset: int = 0
    """Where its text begins, in characters from the beginning of the prompt."""


@dataclass(frozen=True)
class TokenUsage:
    """Token counts of a generation."""

    prompt_tokens: int
    """Tokens of the prompt, including cached ones."""
    cached_tokens: int
    """Prompt tokens that came from the prompt cache and needed no prefill."""
    completion_tokens: int
    """Generated tokens, including an end-of-turn token."""
    reasoning_tokens: int
    """Generated tokens that are reasoning."""


@dataclass(frozen=True)
class GenerationTimings:
    """Timings in seconds, rates in tokens per second."""

    queued_s: float
    """From the request to its first prefill step."""
    time_to_first_token_s: float
    """From the request to its first token, including loading."""
    prompt_s: float
    """Prefill time."""
    generation_s: float
    """Decode time."""
    prompt_tps: float
    generation_tps: float
    peak_memory_bytes: int
    load_s: float = 0.0
    """Time spent loading the model for this request."""


@dataclass(frozen=True)
class LoadProgress:
    """Event: progress of loading the model, before generation begins."""

    stage: str
    """`start`, `import`, `weights`, `warm-up`, `tokenizer` or `batching`."""
    done: int
    """Bytes loaded."""
    total: int
    """Bytes to load; 0 while unknown."""


@dataclass(frozen=True)
class Started:
    """Event: the request is valid and was queued."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that need no prefill."""
    max_tokens: int
    """Token budget of the answer."""
    context_length: int
    """In tokens; 0 if config.json has none."""


@dataclass(frozen=True)
class PrefillProgress:
    """Event: prefill progress of a long prompt."""

    done: int
    """Tokens prefilled so far, including cached ones."""
    total: int
    """Tokens of the prompt."""


@dataclass(frozen=True)
class Delta:
    """Event: the next part of the answer: reasoning, then text, then tool calls. Each may be empty."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tokens: int = 0
    """Tokens generated since the last delta, including those whose text is still held back."""
    token_ids: tuple[int, ...] = ()
    """Set with `return_token_ids`."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Set with `logprobs`."""


@dataclass(frozen=True)
class Finished:
    """Event: the generation ended; the last event of a stream."""

    finish_reason: FinishReason
    usage: TokenUsage
    timings: GenerationTimings
    stop_string: str | None = None
    """The stop sequence that ended the answer, if one did."""


Event: TypeAlias = LoadProgress | Started | PrefillProgress | Delta | Finished
"""The events of `Engine.generate`, in this order."""
