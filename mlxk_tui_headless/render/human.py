"""Human-readable output: renders every envelope with Rich, from the envelope alone."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.segment import Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mlxk_tui.ops.contract.results import (
    CloneData,
    Command,
    Contract,
    Envelope,
    Finding,
    Fix,
    Health,
    HealthData,
    HealthEntry,
    ListData,
    MemoryFit,
    Model,
    ModelFile,
    PruneData,
    RmData,
    Severity,
    ShowData,
    VersionData,
)
from mlxk_tui.ops.core.text import age, format_size, plural, printable, truncate_middle, unmentioned_path
from mlxk_tui.ops.health.machine import may_have_gpu
from mlxk_tui_headless import output
from mlxk_tui_headless.render.columns import draw_columns
from mlxk_tui_headless.render.model_table import list_table
from mlxk_tui_headless.request import View

_UNLIMITED = 100_000
"""Width of output that is not a terminal: nothing is cut or wrapped."""


@dataclass
class Page:
    """The output for stdout, and notes for stderr, so that a pipe gets data only."""

    parts: list[RenderableType] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def show(envelope: Envelope, view: View | None = None) -> int:
    """Print an envelope; return 0, or the exit status if it could not be written."""
    view = view or View()
    if envelope.error is not None:
        text = Text("Error: ", style="bold red").append(
            _text(envelope.error.message, style="default not bold")
        )
        candidates = envelope.error.matches or envelope.error.available_hashes or []
        if len(candidates) > 1:
            for name in candidates:
                text.append("\n  ").append(_text(name, style="default not bold"))
        finished = _finished_parts(envelope)
        status = output.write(render(finished, sys.stdout)) if finished else 0
        output.write_error(render([text], sys.stderr))
        return status
    width = _console(sys.stdout).width if output.is_terminal(sys.stdout) else None
    page = Page() if envelope.data is None else _page(envelope.data, view, width)
    status = output.write(render(page.parts, sys.stdout)) if page.parts else 0
    for note in page.notes:
        output.write_error(render([_text(note, style="dim")], sys.stderr))
    return status


def _finished_parts(envelope: Envelope) -> list[RenderableType]:
    """Return what a failed command has done, if that is several things."""
    data = envelope.data
    if envelope.command is Command.UPDATE and data is not None:
        return _page(data, View(), None).parts
    if envelope.command is not Command.PULL:
        return []
    from mlxk_tui.ops.contract.transfers import PullBatchData
    from mlxk_tui_headless.render import transfers

    return list(transfers.finished_lines(data)) if isinstance(data, PullBatchData) else []


def render(parts: Sequence[RenderableType], stream: TextIO | None) -> str:
    """Render for a stream: colored and wrapped at a terminal, plain elsewhere."""
    console = _console(stream)
    for part in parts:
        # A line of a table that is too long for the terminal continues on the next line; nothing is cut.
        table = isinstance(part, Segments)
        soft_wrap = table or (not console.is_terminal and isinstance(part, Text))
        console.print(part, soft_wrap=soft_wrap, end="" if table else "\n")
    assert isinstance(console.file, io.StringIO)  # noqa: S101 - as _console made it
    text = console.file.getvalue()
    if console.is_terminal:
        return text
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _console(stream: TextIO | None) -> Console:
    at_terminal = output.is_terminal(stream)
    return Console(
        file=io.StringIO(),
        force_terminal=at_terminal,
        width=None if at_terminal else _UNLIMITED,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _text(text: str, *, style: str = "", keep_newlines: bool = False) -> Text:
    return Text(printable(text, keep_newlines=keep_newlines), style=style)


def _page(data: Contract | None, view: View, width: int | None) -> Page:
    if isinstance(data, ListData):
        return Page(*list_table(data, view, width))
    if isinstance(data, ShowData):
        return Page(list(_show(data, view)))
    if isinstance(data, HealthData):
        return Page(list(_health(data, view, width)))
    if isinstance(data, RmData):
        return Page([_text(f"rm: {data.model} — {data.action}: {data.message}")])
    if isinstance(data, PruneData):
        return Page(list(_prune(data)))
    if isinstance(data, CloneData):
        return Page(
            [] if view.quiet else [_text(f"clone: {data.expanded_name or data.model} → {data.target_dir}")]
        )
    if isinstance(data, VersionData):
        return Page([_version(data)])
    return _transfer_or_inference_page(data, view, width)


def _transfer_or_inference_page(data: Contract | None, view: View, width: int | None) -> Page:
    from mlxk_tui.ops.contract.inference import RunData, ServerData
    from mlxk_tui.ops.contract.sharing import LockData, ShareData
    from mlxk_tui.ops.contract.transfers import PullBatchData, PullData, PushData, SearchData
    from mlxk_tui.ops.contract.updates import UpdateData
    from mlxk_tui_headless.render import share, transfers

    if isinstance(data, RunData):
        from mlxk_tui_headless.render.run import run_page

        return Page(*run_page(data, view))
    if isinstance(data, ServerData):
        from mlxk_tui_headless.render.serve import server_lines

        return Page(server_lines(data))
    if isinstance(data, ShareData):
        return Page(share.share_lines(data))
    if isinstance(data, LockData):
        return Page(list(share.lock_lines(data)))
    if isinstance(data, PullData):
        return Page(list(transfers.pull_lines(data)), transfers.pull_notes(data))
    if isinstance(data, PullBatchData):
        return Page(list(transfers.batch_lines(data)), transfers.pull_notes(data))
    if isinstance(data, UpdateData):
        from mlxk_tui_headless.render import update

        return Page(list(update.update_lines(data)), update.update_notes(data))
    if isinstance(data, SearchData):
        return Page(*transfers.search_table(data, width))
    if isinstance(data, PushData):
        from mlxk_tui_headless.render import push

        return Page(list(push.push_lines(data, view)), push.push_notes(data))
    raise TypeError(f"no human output for {type(data).__name__}")


def _pairs(rows: Sequence[tuple[str, str | Text]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(label), value if isinstance(value, Text) else _text(value))
    return grid


def _show(data: ShowData, view: View) -> Iterator[RenderableType]:
    model = data.model
    yield _text(model.name, style="bold")
    facts = _facts(model, data.metadata)
    if data.batching is not None:
        facts.append(("Batching", data.batching.message))
    yield _pairs(facts)
    if data.findings:
        yield Text()
        yield Text("Findings", style="bold")
        yield from (_finding(finding) for finding in data.findings)
    if view.files:
        yield Text()
        yield Text(f"Files ({len(data.files):,})", style="bold")
        yield _files(data.files)
    if data.config is not None:
        yield Text()
        yield Text("config.json", style="bold")
        pretty = json.dumps(data.config, indent=2, ensure_ascii=False)
        yield _text(pretty, keep_newlines=True)


def _facts(model: Model, metadata: dict[str, object] | None) -> list[tuple[str, str | Text]]:
    healthy = model.health is Health.HEALTHY
    rows: list[tuple[str, str | Text]] = [
        ("Hash", model.hash or "-"),
        ("Size", format_size(model.size_bytes)),
        ("On disk", f"{format_size(model.disk_bytes)} in {plural(model.revisions, 'revision')}"),
        ("Modified", f"{age(model.last_modified)} ({model.last_modified})"),
        ("Framework", model.framework.value),
        ("Type", model.model_type.value),
        ("Capabilities", ", ".join(model.abilities) or "-"),
    ]
    architectures = (metadata or {}).get("architectures")
    if isinstance(architectures, list) and architectures and isinstance(architectures[0], str):
        rows.append(("Architecture", architectures[0][:200]))
    if model.quantization is not None:
        group = model.quantization.group_size
        rows.append(
            ("Quantization", f"{model.quantization.bits} bits" + (f", groups of {group}" if group else ""))
        )
    if model.context_length is not None:
        rows.append(("Context", f"{model.context_length:,} tokens"))
    if model.memory_bytes is not None:
        fit = {
            MemoryFit.FITS: "fits this machine",
            MemoryFit.TIGHT: "tight on this machine",
            MemoryFit.TOO_LARGE: "too large for this machine",
        }
        verdict = f", {fit[model.memory_fit]}" if model.memory_fit is not None else ""
        rows.append(("Memory", f"about {format_size(model.memory_bytes)}{verdict}"))
        if model.memory_float32_bytes is not None and not may_have_gpu():
            rows.append(
                ("as float32", f"about {format_size(model.memory_float32_bytes)}, on a CPU if it fits")
            )
    rows.append(("Health", Text(model.health.value, style="green" if healthy else "red")))
    rows.append(("Runs here", "yes" if model.runtime_compatible else "no"))
    if model.reason:
        rows.append(("Reason", model.reason))
    return rows


def _finding(finding: Finding) -> RenderableType:
    # Most messages name the file; the path is added only if the message does not.
    path = unmentioned_path(finding.message, finding.path)
    text = _text(f"{path}: {finding.message}" if path else finding.message)
    if finding.fix is not Fix.NONE:
        text.append(f" (fix: {finding.fix.value})", style="dim")
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    style = "red" if finding.severity is Severity.ERROR else "yellow"
    grid.add_row(Text(f"{finding.severity.value:<7}", style=style), text)
    return Padding(grid, (0, 0, 0, 4), expand=False)


def _files(files: Sequence[ModelFile]) -> RenderableType:
    rows = [
        [printable(file.name), file.size, file.type, printable((file.etag or "-")[:12])] for file in files
    ]
    return draw_columns(
        ["Name", "Size", "Type", "Blob"],
        rows,
        right=frozenset({"Size"}),
        style=lambda title, cell: Style(dim=True) if title == "Blob" else None,
    )


def _health(data: HealthData, view: View, width: int | None) -> Iterator[RenderableType]:
    counts = data.summary
    yield Text(
        f"Summary: total {counts.total}, healthy {counts.healthy_count}, unhealthy {counts.unhealthy_count}"
    )
    for entry in [*data.healthy, *data.unhealthy]:
        yield _health_line(entry, width)
        if view.verbose:
            yield from (_finding(finding) for finding in entry.findings)


def _health_line(entry: HealthEntry, width: int | None) -> Text:
    style = "green" if entry.status is Health.HEALTHY else "red"
    line = Text(f"{entry.status.value:<9} ", style=style)
    name = printable(entry.name)
    if width is not None:
        name = truncate_middle(name, max(20, width - len(line)))
    line.append(_text(f"{name} — {entry.reason}", style="default"))
    if entry.checksums is not None:
        checksums = entry.checksums
        line.append(
            f" [{plural(checksums.files, 'blob')} hashed, {format_size(checksums.bytes)}", style="dim default"
        )
        if checksums.unverifiable:
            line.append(f", {checksums.unverifiable:,} without a checksum", style="dim default")
        line.append("]", style="dim default")
    return line


def _prune(data: PruneData) -> Iterator[RenderableType]:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for revision in data.revisions:
        table.add_row(
            Text("revision"),
            _text(f"{revision.name}@{revision.hash}"),
            Text(format_size(revision.freed_bytes)),
        )
    for kind, files in (("blob", data.blobs), ("partial", data.incomplete)):
        for file in files:
            table.add_row(Text(kind), _text(file.path), Text(format_size(file.freed_bytes)))
    if table.row_count:
        yield table
    yield _text(f"prune: {data.message}")


def _version(data: VersionData) -> Table:
    rows: list[tuple[str, str | Text]] = [
        ("mlxk-headless", data.cli_version),
        ("JSON API", data.json_api_spec_version),
    ]
    if data.system is not None:
        system = data.system
        rows += [
            ("Platform", system.platform),
            ("Python", system.python),
            ("Memory", format_size(system.memory_bytes)),
            ("mlx", system.mlx or "not installed"),
            ("mlx-lm", system.mlx_lm or "not installed"),
            ("huggingface_hub", system.huggingface_hub or "not installed"),
            ("Cache", system.cache_dir),
        ]
        if system.blas is not None:
            rows.append(("BLAS", system.blas.message))
    return _pairs(rows)
