"""The JSON contract of inference: `run` and `serve`.

Part of `contract.py`, apart from it so that commands which run no model start without it. Annotations are
real objects here, for the reason given there.
"""

from typing import Literal

from pydantic import Field

from mlxk_tui.ops.contract.results import Contract


class Usage(Contract):
    """Tokens of one generation, counted by the tokenizer."""

    prompt_tokens: int
    cached_tokens: int = Field(description="Of the prompt: those that the prompt cache spared.")
    completion_tokens: int
    reasoning_tokens: int = Field(description="Of the completion: those of the reasoning.")
    total_tokens: int


class Timings(Contract):
    """How long one generation took."""

    load_s: float = Field(description="Loading the model, in seconds; 0 when it was loaded.")
    time_to_first_token_s: float | None = Field(description="From the request on, in seconds.")
    prompt_tokens_per_s: float | None
    tokens_per_s: float | None
    peak_memory_bytes: int | None


class RunData(Contract):
    """`run`."""

    model: str
    prompt: str
    response: str
    reasoning: str | None = Field(description="What the model thought, where it shows that apart.")
    tool_calls: list[str] = Field(description="Tools that the model wants called: JSON texts.")
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]
    tokens_generated: int
    generation_time_s: float = Field(description="From the request to the last token, in seconds.")
    usage: Usage
    timings: Timings


class ServerData(Contract):
    """`server`: where it listens, from now on."""

    url: str = Field(description="Base of all routes; OpenAI's clients take it with /v1 behind it.")
    host: str
    port: int = Field(description="The real one, also where 0 was asked for.")
    model: str | None = Field(description="Loaded at once; null where each request names its model.")
    pid: int = Field(description="Process to send SIGTERM (end) or SIGHUP (read the settings again) to.")
