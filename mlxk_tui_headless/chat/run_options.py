"""What a command line of `run` asks for, and the models and the engine that it leads to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxk_tui import settings
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.generation import Generation, Sampling
from mlxk_tui.engine.models import Runnable, find_runnable, with_draft
from mlxk_tui.ops.contract.terms import CpuWeights, MemoryFit
from mlxk_tui.ops.core.text import size
from mlxk_tui_headless import output

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession

MAX_INPUT_BYTES = 16_000_000
"""Longest prompt that stdin may hold; no model's context is that long."""


@dataclass(frozen=True)
class RunOptions:
    """What the command line asks for."""

    model: str
    prompt: str | None
    system: str | None
    sampling: Sampling
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

    def about(self, prompt: str, draft: Runnable | None) -> Generation:
        """Return the request for one answer."""
        raw = not self.chat_template and self.system is None
        system = [{"role": "system", "content": self.system}] if self.system else []
        return Generation(
            prompt=prompt if raw else None,
            messages=None if raw else (*system, {"role": "user", "content": prompt}),
            sampling=self.sampling,
            max_tokens=self.max_tokens,
            stop=self.stop,
            chat_template=self.chat_template,
            kv_bits=self.kv_bits,
            draft_model=str(draft.folder) if draft is not None else None,
            draft_name=draft.name if draft is not None else None,
        )


async def find_models(session: CommandSession, wanted: RunOptions) -> tuple[Runnable, Runnable | None]:
    """Return the model and the draft model, and warn where memory is tight.

    Raises:
        OpError: those of `find_runnable`.
    """
    model = await find_runnable(session.cache, wanted.model, force=wanted.force)
    draft = None
    if wanted.draft is not None:
        draft = await find_runnable(session.cache, wanted.draft, force=wanted.force)
        model = with_draft(model, draft, force=wanted.force)
    if model.fit is MemoryFit.TIGHT and not session.options.json:
        output.warn(f"Note: {model.name} needs about {size(model.memory_bytes)}, which is tight here.")
    return model, draft


def new_engine(wanted: RunOptions) -> Engine:
    """Return an engine that holds weights as the command line or a setting says; it answers one at a time."""
    loaded = settings.load({"cpu_weights": wanted.cpu_weights})
    return Engine(batching=False, weights=settings.weights_choice(loaded))
