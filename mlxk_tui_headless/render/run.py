"""Human-readable output of `run` if the answer was not streamed."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from mlxk_tui.ops.contract.inference import RunData
from mlxk_tui.ops.core.text import printable
from mlxk_tui_headless.chat.answer import summary
from mlxk_tui_headless.request import View


def run_page(data: RunData, view: View) -> tuple[list[RenderableType], list[str]]:
    """Return the answer and, with --verbose, its token counts and timings."""
    parts: list[RenderableType] = []
    if data.reasoning and not view.hide_reasoning:
        parts += [Text(printable(data.reasoning.strip(), keep_newlines=True), style="dim"), Text()]
    parts.append(Text(printable(data.response, keep_newlines=True)))
    parts += [Text(printable(call)) for call in data.tool_calls]
    return parts, [summary(data)] if view.verbose else []
