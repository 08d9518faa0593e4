"""The plan of a pull as text: download size, disk, memory, license, access."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.ops.pull.plan import PullPlan
from mlxk_tui.ui.inspector.description import memory_gauge
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.text import Part, cut, gauge, pad, sentence, wrap

_LABEL = 10
_GAUGE = 10


def download_text(plan: PullPlan) -> str:
    """Return the size and the number of the files to download: `2.28 GB in 5 files`."""
    if not plan.missing:
        return "Already complete"
    files = plural(len(plan.missing), "file")
    return f"{format_size(plan.bytes_to_fetch)} in {files}"


def plan_rows(plan: PullPlan, machine_bytes: int, width: int) -> list[list[Part]]:
    """Return the plan as lines; styles are theme tokens.

    Args:
        plan: what the pull would download.
        machine_bytes: memory that models can use on this machine, in bytes; 0 while unknown.
        width: cells of a line.
    """
    revision = f"{printable(plan.ref)} · {plan.commit[:12]}" if plan.ref != plan.commit else plan.commit[:12]
    rows: list[list[Part]] = [
        [(cut(printable(plan.repo), width), "$strong bold")],
        [(cut(revision, width), "$muted")],
        [],
        *_fact("Download", download_text(plan), width),
    ]
    on_disk = plan.bytes_total - plan.bytes_to_fetch
    if plan.missing and on_disk > 0:
        text = f"{format_size(on_disk)} of {format_size(plan.bytes_total)} already on disk"
        rows += _fact("", text, width, "$muted")
    rows += _disk(plan, width)
    if plan.memory_bytes is not None and machine_bytes:
        lines = memory_gauge(plan.memory_bytes, machine_bytes, plan.memory_fit, width - _LABEL)
        for number, row in enumerate(lines):
            rows.append([(pad("Memory" if number == 0 else "", _LABEL), "$muted"), *row])
    rows += _fact("License", printable(plan.license) if plan.license else "not specified", width)
    if plan.gated or plan.private:
        kind = "gated" if plan.gated else "private"
        rows += _fact("Access", f"{kind}, your account has access", width)
    if plan.lacks_space:
        rows += [[], *_marked("✗", "$bad", error_text(plan.lacks_space), width)]
    for warning in plan.warnings[:3]:
        rows += [[], *_marked("▲", "$attention", sentence(warning), width)]
    return rows


def _disk(plan: PullPlan, width: int) -> list[list[Part]]:
    if plan.disk_free is None:
        return []
    share = plan.bytes_to_fetch / plan.disk_free if plan.disk_free else 1.0
    style = "$bad" if plan.lacks_space else "$attention" if share > 0.9 else "$good"
    full, empty = gauge(min(1.0, share), _GAUGE)
    label = "not enough" if plan.lacks_space else "enough"
    text = f"needs {format_size(plan.bytes_to_fetch)} of {format_size(plan.disk_free)} free"
    parts: list[Part] = [(full, style), (empty, "$line"), (f"  {label}", style)]
    title: Part = (pad("Disk", _LABEL), "$muted")
    if len(text) + 3 + _GAUGE + 2 + len(label) <= width - _LABEL:
        return [[title, (f"{text}   ", ""), *parts]]
    return [[title, (text, "")], [(" " * _LABEL, ""), *parts]]


def _fact(label: str, value: str, width: int, style: str = "") -> list[list[Part]]:
    return [
        [(pad(label if number == 0 else "", _LABEL), "$muted"), (text, style)]
        for number, text in enumerate(wrap(value, width - _LABEL))
    ]


def _marked(glyph: str, style: str, text: str, width: int) -> list[list[Part]]:
    return [
        [(f"{glyph} " if number == 0 else "  ", style), (part, "")]
        for number, part in enumerate(wrap(text, width - 2))
    ]


def failure_rows(name: str, message: str, hints: Sequence[str], width: int) -> list[list[Part]]:
    """Return the lines of a failed preflight: the cause, then the next step."""
    rows: list[list[Part]] = [[(cut(printable(name), width), "$strong bold")], []]
    rows += _marked("✗", "$bad", sentence(message), width)
    for hint in hints:
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(hint, width - 2)]
    return rows
