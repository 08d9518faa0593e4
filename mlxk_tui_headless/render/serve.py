"""Human-readable output of `server` once it listens."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from mlxk_tui.ops.contract.inference import ServerData
from mlxk_tui.ops.core.text import printable


def server_lines(data: ServerData) -> list[RenderableType]:
    """Return the lines with the address and the model."""
    model = printable(data.model) if data.model else "any cached model, chosen by each request"
    return [
        Text(f"Serving on {printable(data.url)}").append("   Ctrl-C to stop", style="dim"),
        Text(f"  base URL  {printable(data.url)}/v1"),
        Text(f"  model     {model}"),
    ]
