"""The options of `run`, and the models and the engine for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui import settings
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import GenerationRequest, SamplingParams
from mlxk_tui.engine.models import RunnableModel, find_runnable, with_draft
from mlxk_tui.ops.contract.terms import CpuWeights, MemoryFit
from mlxk_tui.ops.core.text import format_size
from mlxk_tui.services.conversation.generation import with_draft_model
from mlxk_tui_headless import output

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession

MAX_INPUT_BYTES = 16_000_000
"""Longest prompt that is read from stdin; longer than any model's context."""


@dataclass(frozen=True)
class RunOptions:
    """The options of the command line."""

    model: str
    prompt: str | None
    system: str | None
    sampling: SamplingParams
    max_tokens: int | None
    stop: tuple[str, ...]
    chat_template: bool
    kv_bits: int | None
    draft: str | None
    cpu_weights: CpuWeights | None
    force: bool
    stream: bool
    show_reasoning: bool
    verbose: bool

    def to_generation(self, prompt: str, draft: RunnableModel | None) -> GenerationRequest:
        """Return the generation request for a prompt."""
        raw = not self.chat_template and self.system is None
        system = [{"role": "system", "content": self.system}] if self.system else []
        request = GenerationRequest(
            prompt=prompt if raw else None,
            messages=None if raw else (*system, {"role": "user", "content": prompt}),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.stop,
            chat_template=self.chat_template,
            kv_bits=self.kv_bits,
        )
        return with_draft_model(request, draft)


async def find_models(
    session: CommandSession, options: RunOptions
) -> tuple[RunnableModel, RunnableModel | None]:
    """Return the model and the draft model, and warn if memory is tight.

    Raises:
        OpError: the errors of `find_runnable`.
    """
    model = await find_runnable(session.cache, options.model, force=options.force)
    draft = None
    if options.draft is not None:
        draft = await find_runnable(session.cache, options.draft, force=options.force)
        model = with_draft(model, draft, force=options.force)
    if model.fit is MemoryFit.TIGHT and not session.options.json:
        needed = format_size(model.memory_bytes)
        output.warn(f"Note: {model.name} needs about {needed} of memory: tight on this machine.")
    return model, draft


def new_engine(options: RunOptions) -> Engine:
    """Return an engine for one request at a time; options or settings choose the format of weights."""
    loaded = settings.load({"cpu_weights": options.cpu_weights})
    return Engine(batching=False, weights=settings.weights_policy(loaded))
