"""Options that several commands take, and those that hold for all: `Globals`.

Annotations are real objects here, for the reason given in `cli.py`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer

from mlxk_tui.ops.contract.terms import CpuWeights


@dataclass
class Globals:
    """Options that stand before the command word; `--json` and `--progress` may also stand behind it."""

    command: str = "cli"
    """The command word as far as it was recognised."""
    json: bool = False
    demo: bool = False
    cache_dir: str | None = None
    json_progress: bool = False
    version: bool = False


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
