"""The JSON contract of inference: `run` and `serve`.

A module of its own, so that commands that run no model start without it. Annotations are objects and
not strings, for the reason that `results.py` gives.
"""

from typing import Literal

from pydantic import Field

from mlxk_tui.ops.contract.results import Contract


class Usage(Contract):
    """Token counts of one generation, by the tokenizer."""

    prompt_tokens: int
    cached_tokens: int = Field(description="Prompt tokens that the prompt cache already held.")
    completion_tokens: int
    reasoning_tokens: int = Field(description="Completion tokens that belong to the reasoning.")
    total_tokens: int


class Timings(Contract):
    """Durations and rates of one generation."""

    load_s: float = Field(description="Seconds to load the model; 0 when it was loaded already.")
    time_to_first_token_s: float | None = Field(description="Seconds from the request to the first token.")
    prompt_tokens_per_s: float | None
    tokens_per_s: float | None
    peak_memory_bytes: int | None


class RunData(Contract):
    """Data of `run`: one answer of a model, with its costs."""

    model: str
    prompt: str
    response: str
    reasoning: str | None = Field(description="The model's reasoning, if its format separates it.")
    tool_calls: list[str] = Field(description="Tool calls that the model requests, as JSON texts.")
    finish_reason: Literal["stop", "length", "tool_calls", "cancelled"]
    tokens_generated: int
    generation_time_s: float = Field(description="Seconds from the request to the last token.")
    usage: Usage
    timings: Timings


class ServerData(Contract):
    """Data of `server`, printed once it is listening."""

    url: str = Field(description="Base URL of all routes; OpenAI clients need /v1 appended.")
    host: str
    port: int = Field(description="The port in use, also when port 0 was requested.")
    model: str | None = Field(description="The preloaded model; null when each request names its model.")
    pid: int = Field(description="Process id, for SIGTERM (stop) and SIGHUP (reload the settings).")
