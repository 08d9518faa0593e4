"""Options shared by several commands, and the options of all commands: `GlobalOptions`.

No `annotations` from `__future__` here, for the reason given in `cli.py`.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer

from mlxk_tui.ops.contract.terms import CpuWeights


@dataclass
class GlobalOptions:
    """Options before the command; `--json` and `--progress` may also come after it."""

    command: str = "cli"
    """The command, or `cli` if none was recognized."""
    json: bool = False
    demo: bool = False
    cache_dir: str | None = None
    json_progress: bool = False
    version: bool = False


class ProgressFormat(str, Enum):
    """Values of `--progress`."""

    JSON = "json"


JsonOption = Annotated[bool, typer.Option("--json", help="Print a single JSON object.")]
ProgressOption = Annotated[
    ProgressFormat | None,
    typer.Option("--progress", help="Write progress to stderr, one JSON event per line."),
]
CpuWeightsOption = Annotated[
    CpuWeights | None,
    typer.Option(
        "--cpu-weights", help="Weights without a GPU: float32, as stored, or auto (float32 if it fits)."
    ),
]


def record_options(ctx: typer.Context, as_json: bool, progress: ProgressFormat | None = None) -> None:
    """Add the options given here to the global options."""
    options = ctx.ensure_object(GlobalOptions)
    options.json = options.json or as_json
    options.json_progress = options.json_progress or progress is not None
