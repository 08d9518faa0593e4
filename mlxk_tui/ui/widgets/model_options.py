"""The models that can chat, as options of a choice dialog."""

from __future__ import annotations

from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.text import format_size
from mlxk_tui.services.conversation import models
from mlxk_tui.services.library import Library
from mlxk_tui.ui.widgets.choice_dialogs import Option


def model_options(library: Library) -> list[Option]:
    """Return an option for each model that can chat, with its size and memory fit."""
    options = []
    for entry in models.chat_models(library):
        fit = entry.model.memory_fit
        detail, style = format_size(entry.model.size_bytes), "muted"
        if fit is MemoryFit.TIGHT:
            detail, style = f"tight  {detail}", "attention"
        elif fit is MemoryFit.TOO_LARGE:
            detail, style = f"too large  {detail}", "bad"
        options.append(Option(models.name_of(entry), entry.name, detail, style))
    return options
