"""What people see of `server` once it listens, drawn from the envelope alone."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text

from mlxk_tui.ops.contract.inference import ServerData
from mlxk_tui.ops.core.text import printable


def server_lines(data: ServerData) -> list[RenderableType]:
    """Return where it listens and what it serves."""
    model = printable(data.model) if data.model else "any model of the cache; requests name it"
    return [
        Text(f"Serving on {printable(data.url)}").append("   Ctrl-C stops it", style="dim"),
        Text(f"  base URL  {printable(data.url)}/v1"),
        Text(f"  model     {model}"),
    ]
