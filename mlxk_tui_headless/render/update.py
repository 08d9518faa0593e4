"""Human-readable output of `update`: a line for each model that is not up to date, and a summary."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from mlxk_tui.ops.contract.terms import UpdateStatus
from mlxk_tui.ops.contract.updates import ModelUpdate, UpdateData
from mlxk_tui.ops.core.text import age, format_size, printable

_STYLES = {
    UpdateStatus.AVAILABLE: "yellow",
    UpdateStatus.UPDATED: "green",
    UpdateStatus.FAILED: "red",
    UpdateStatus.UNKNOWN: "dim",
}


def update_lines(data: UpdateData) -> Iterator[RenderableType]:
    """Yield the lines of a result."""
    for model in data.models:
        if model.status is not UpdateStatus.CURRENT:
            yield _line(model)
    yield Text(printable(f"update: {data.message}"))


def update_notes(data: UpdateData) -> list[str]:
    """Return the notes for stderr."""
    if not data.summary.updated:
        return []
    return ["The old revisions are still in the cache. 'mlxk-headless prune' removes them."]


def _line(model: ModelUpdate) -> Text:
    line = Text(f"{model.status.value:<9} ", style=_STYLES[model.status])
    name = model.name if model.revision in {None, "main"} else f"{model.name}@{model.revision}"
    line.append(printable(f"{name} — {'; '.join(_facts(model))}"), style="default not dim")
    return line


def _facts(model: ModelUpdate) -> Iterator[str]:
    if model.commit_hash and model.latest_hash and model.status is not UpdateStatus.UNKNOWN:
        change = f"{model.commit_hash[:7]} → {model.latest_hash[:7]}"
        yield f"{change}, {age(model.last_modified)}" if model.last_modified else change
    if model.status is UpdateStatus.UPDATED:
        yield f"{format_size(model.bytes_downloaded)} downloaded"
    elif model.bytes_to_download is not None and model.status is UpdateStatus.AVAILABLE:
        yield f"{format_size(model.bytes_to_download)} to download"
    if model.message:
        yield model.message
