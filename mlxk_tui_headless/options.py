"""Options and arguments that several commands take, and remembering those that are global.

Annotations are real objects here, for the reason given in `cli.py`.
"""

from enum import Enum
from typing import Annotated

import typer

from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui_headless.request import Globals


class ProgressFormat(str, Enum):
    """Values of `--progress`."""

    JSON = "json"


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ProgressOption = Annotated[
    ProgressFormat | None,
    typer.Option("--progress", help="Write progress to stderr, one JSON event a line."),
]
CpuWeightsOption = Annotated[
    CpuWeights | None,
    typer.Option("--cpu-weights", help="Without a GPU: float32 copies, as stored, or copies where they fit."),
]


def note(ctx: typer.Context, as_json: bool, progress: ProgressFormat | None = None) -> None:
    """Remember the global options that were given at this place."""
    options = ctx.ensure_object(Globals)
    options.json = options.json or as_json
    options.json_progress = options.json_progress or progress is not None
