"""The models that can answer, as lines of a choice."""

from __future__ import annotations

from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.text import spaced_size
from mlxk_tui.services.conversation import models
from mlxk_tui.services.library import Library
from mlxk_tui.ui.widgets.choice_dialogs import Option


def model_options(library: Library) -> list[Option]:
    """Return the models as lines to choose from."""
    made = []
    for entry in models.chat_models(library):
        fit = entry.model.memory_fit
        about, style = spaced_size(entry.model.size_bytes), "muted"
        if fit is MemoryFit.TIGHT:
            about, style = f"tight  {about}", "attention"
        elif fit is MemoryFit.TOO_LARGE:
            about, style = f"too large  {about}", "bad"
        made.append(Option(models.name_of(entry), entry.name, about, style))
    return made
