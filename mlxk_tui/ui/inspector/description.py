"""Descriptions of a model for the inspector and the health list, as plain content of a given width."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual.content import Content

from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.contract.terms import FindingCode, Fix, Framework, Health, MemoryFit, ModelType, Severity
from mlxk_tui.ops.core.text import age, format_size, plural, printable, unmentioned_path
from mlxk_tui.services.library import Entry, ModelState
from mlxk_tui.ui.widgets.text import (
    FIT_LABELS,
    FIT_STYLES,
    UPDATE_GLYPH,
    Part,
    cut,
    gauge,
    line,
    lines,
    pad,
    quant_description,
    wrap,
)

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Finding, ModelFile

_LABEL = 13
_GAUGE = 10
_MAX_FILES = 500
_MAX_CONFIG = 400
"""Lines of config.json that are shown."""

DOWNLOADING = "See Transfers for progress."
"""Shown in place of findings while a model is being pulled."""
_TYPES = {ModelType.CHAT: "chat", ModelType.EMBEDDING: "embedding", ModelType.BASE: "base"}


def verdict(entry: Entry) -> tuple[ModelState, str]:
    """Return the state of a model and its description."""
    if entry.state is ModelState.DOWNLOADING:
        return ModelState.DOWNLOADING, "Downloading"
    if not entry.intact:
        return ModelState.BAD, "Broken"
    if not entry.model.runtime_compatible:
        return ModelState.ATTENTION, "Intact, but can't run here"
    if entry.model.memory_fit is MemoryFit.TOO_LARGE:
        return ModelState.ATTENTION, "Intact, but too large for this machine"
    if entry.model.memory_fit is MemoryFit.TIGHT:
        return ModelState.ATTENTION, "Ready to run, but memory is tight"
    return ModelState.GOOD, "Ready to run"


def fix_hint(finding: Finding, name: str) -> str:
    """Return the next step that repairs a finding, with its key; empty if there is none."""
    if finding.fix is Fix.PULL:
        return (
            "pull it again to repair it (p)"
            if is_valid_repo_name(name)
            else "pull it again under its own name"
        )
    return {
        Fix.REMOVE: "delete the model (d)",
        Fix.PRUNE: "prune the leftovers of downloads (x)",
        Fix.UPGRADE: "upgrade mlx-lm: pip install -U mlx-lm",
    }.get(finding.fix, "")


_SEVERITY = {Severity.ERROR: ("✗", "bad"), Severity.WARNING: ("▲", "attention")}
_RUNTIME = {
    FindingCode.FRAMEWORK_UNSUPPORTED,
    FindingCode.MLX_LM_MISSING,
    FindingCode.WEIGHTS_NOT_LOADABLE,
    FindingCode.ARCHITECTURE_UNKNOWN,
    FindingCode.CUSTOM_CODE,
    FindingCode.TOKENIZER_MISSING,
    FindingCode.MEMORY_TIGHT,
    FindingCode.MEMORY_TOO_LARGE,
}


def finding_rows(finding: Finding, name: str, width: int, token_prefix: str = "") -> list[list[Part]]:
    """Return a finding as lines: the cause, then the file. `token_prefix` precedes each token name."""
    glyph, token = _SEVERITY[finding.severity]
    if finding.code in _RUNTIME:  # the files are intact: not an error of the cache
        glyph, token = "▲", "attention"
    room = width - 2
    rows: list[list[Part]] = []
    for number, text in enumerate(wrap(printable(finding.message), room)):
        rows.append([(f"{glyph} " if number == 0 else "  ", f"{token_prefix}{token}"), (text, "")])
    path = unmentioned_path(finding.message, finding.path)
    if path is not None:
        rows.append([("  ", ""), (cut(path, room), f"{token_prefix}muted")])
    return rows


def findings_rows(
    findings: Sequence[Finding], name: str, width: int, token_prefix: str = "", limit: int = 100
) -> list[list[Part]]:
    """Return findings as lines; consecutive findings with the same fix share its line."""
    rows: list[list[Part]] = []
    shown = findings[:limit]
    for number, finding in enumerate(shown):
        rows += finding_rows(finding, name, width, token_prefix)
        fix = fix_hint(finding, name)
        last = number == len(shown) - 1
        if fix and (last or fix_hint(shown[number + 1], name) != fix):
            for count, text in enumerate(wrap(fix, width - 4)):
                arrow = "→ " if count == 0 else "  "
                rows.append([("  ", ""), (arrow, f"{token_prefix}accent"), (text, f"{token_prefix}muted")])
    if len(findings) > limit:
        rows.append(
            [("  ", ""), (f"… and {plural(len(findings) - limit, 'more finding')}", f"{token_prefix}muted")]
        )
    return rows


def memory_gauge(needed: int, machine: int, fit: MemoryFit | None, width: int) -> list[list[Part]]:
    """Return the memory fit: needed and available bytes, a gauge and a label, in one line or two."""
    style = FIT_STYLES.get(fit, "$muted") if fit else "$muted"
    full, empty = gauge(needed / machine if machine else 0, _GAUGE)
    text = f"needs {format_size(needed)} of {format_size(machine)}"
    label = f"  {FIT_LABELS[fit]}" if fit else ""
    parts: list[Part] = [(full, style), (empty, "$line"), (label, style)]
    if cell_len(text) + 3 + _GAUGE + cell_len(label) <= width:
        return [[(text + "   ", ""), *parts]]
    return [[(text, "")], parts]


def overview(
    entry: Entry,
    machine_bytes: int,
    now: datetime,
    width: int,
    *,
    in_turn: object = None,
    without_gpu: bool = False,
) -> Content:
    """Return the overview tab.

    Args:
        entry: the model.
        machine_bytes: memory that models can use on this machine, in bytes.
        now: the current time, for ages.
        width: cells of a line.
        in_turn: why its requests can't be batched, as a sentence; anything else if they can.
        without_gpu: whether models run on the CPU only.
    """
    model = entry.model
    state, label = verdict(entry)
    kind = [part for part in (model.framework.value, _TYPES.get(model.model_type)) if part]
    if model.framework is Framework.UNKNOWN:
        kind[0] = "no known weights"
    org = f"{entry.org}/" if entry.org else ""
    if cell_len(org + entry.short) <= width:
        rows: list[list[Part]] = [[(org, "$muted"), (entry.short, "$strong bold")]]
    else:
        rows = [[(text, "$muted")] for text in wrap(org, width) if org]
        rows += [[(text, "$strong bold")] for text in wrap(entry.short, width)]
    rows += [[(text, "$muted")] for text in wrap(" · ".join(kind), width)]
    rows += [[], [(f"{state.glyph} ", state.style), (label, state.style)]]
    # The findings include checksums, the model's reason does not.
    first = next((f.message for f in entry.findings if f.severity is Severity.ERROR), model.reason)
    if state is ModelState.DOWNLOADING:
        first = DOWNLOADING
    if state is not ModelState.GOOD and first:
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(printable(first), width - 2)]
    if entry.update is not None:
        change = f"{entry.update.commit[:7]} → {entry.update.latest[:7]}"
        when = f", {age(entry.update.last_modified, now)}" if entry.update.last_modified else ""
        first, *more = wrap(f"Update available: {change}{when}. Press p to pull it.", width - 2)
        rows.append([(f"{UPDATE_GLYPH} ", "$accent"), (first, "")])
        rows += [[("  ", ""), (text, "")] for text in more]
    rows += _memory(entry, machine_bytes, width, without_gpu)
    if isinstance(in_turn, str):
        rows += [[], *([(text, "$muted")] for text in wrap(in_turn, width))]
    rows.append([])
    for label, value, note in _facts(entry, now):
        shown = wrap(value, width - _LABEL)
        for number, text in enumerate(shown):
            rows.append([(pad(label if number == 0 else "", _LABEL), "$muted"), (text, "")])
        if note:
            if len(shown[-1]) + 2 + len(note) <= width - _LABEL:
                rows[-1].append((f"  {note}", "$muted"))
            else:
                rows += [[(" " * _LABEL, ""), (text, "$muted")] for text in wrap(note, width - _LABEL)]
    return lines(rows)


def _memory(entry: Entry, machine_bytes: int, width: int, without_gpu: bool) -> list[list[Part]]:
    model = entry.model
    if model.memory_bytes is None or not machine_bytes:
        return []
    rows: list[list[Part]] = [[], *memory_gauge(model.memory_bytes, machine_bytes, model.memory_fit, width)]
    if without_gpu and model.memory_float32_bytes is not None:
        as_float32 = f"{format_size(model.memory_float32_bytes)} as float32, if it fits"
        rows += [[(text, "$muted")] for text in wrap(as_float32, width)]
    return rows


def _facts(entry: Entry, now: datetime) -> list[tuple[str, str, str]]:
    model, facts = entry.model, entry.report.facts
    rows: list[tuple[str, str, str]] = []
    if model.quantization is not None:
        rows.append(("Quantization", quant_description(model.quantization), ""))
    if model.context_length:
        rows.append(("Context", f"{model.context_length:,} tokens", ""))
    shape = [
        f"{value:,} {word}"
        for value, word in ((facts.layers, "layers"), (facts.hidden_size, "hidden"))
        if value
    ]
    if shape:
        rows.append(("Shape", " · ".join(shape), ""))
    if facts.vocab_size:
        rows.append(("Vocabulary", f"{facts.vocab_size:,} tokens", ""))
    if facts.architecture:
        rows.append(("Architecture", printable(facts.architecture), ""))
    if model.abilities:
        rows.append(("Tasks", ", ".join(model.abilities), ""))
    rows.append(("Size", format_size(model.size_bytes), "this revision"))
    rows.append(("On disk", format_size(model.disk_bytes), plural(model.revisions, "revision")))
    exact = f"{model.last_modified[:16].replace('T', ' ')} UTC"
    ago = age(model.last_modified, now)
    rows.append(("Modified", exact, "") if exact.startswith(ago) else ("Modified", ago, exact))
    if model.hash:
        rows.append(("Commit", printable(model.hash)[:12], ""))
    if facts.license:
        rows.append(("License", printable(facts.license), ""))
    if facts.tags:
        rows.append(("Tags", printable(", ".join(facts.tags[:12])), ""))
    return rows


def health(entry: Entry, now: datetime, width: int) -> Content:
    """Return the health tab: the state, all findings, and the result of a checksum run."""
    state, label = verdict(entry)
    rows: list[list[Part]] = [[(f"{state.glyph} ", state.style), (label, f"{state.style} bold")]]
    if state is ModelState.DOWNLOADING:
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(DOWNLOADING, width - 2)]
    elif entry.findings:
        rows += [[], *findings_rows(entry.findings, entry.model.name, width, "$")]
    rows.append([])
    if entry.verified is None:
        hint = "Checksums not verified yet. Press v to verify."
        rows += [[(text, "$muted")] for text in wrap(hint, width)]
    else:
        rows += [[(text, "$muted")] for text in wrap(checksum_sentence(entry, now), width)]
    if entry.model.health is Health.HEALTHY and not entry.findings:
        rows.insert(1, [("  All files are present and readable.", "$muted")])
    return lines(rows)


def checksum_sentence(entry: Entry, now: datetime) -> str:
    """Return the result of the last checksum run, as a sentence."""
    verified = entry.verified
    if verified is None:
        return ""
    sums = verified.result.checksums
    when = age(datetime.fromtimestamp(verified.at, now.tzinfo).strftime("%Y-%m-%dT%H:%M:%SZ"), now)
    if not sums.files:
        text = f"Verified {when}: no files with checksums"
    else:
        result = f"{sums.mismatched:,} mismatched" if sums.mismatched else "all match"
        text = f"Checksums verified {when}: {plural(sums.files, 'file')}, {format_size(sums.bytes)}, {result}"
    if sums.unverifiable:
        text += f"; {plural(sums.unverifiable, 'file')} without a checksum"
    return text + "."


def files(listed: Sequence[ModelFile], width: int) -> Content:
    """Return the files tab: a line per file with its size, and the total."""
    if not listed:
        return Content.styled("This revision has no files.", "$muted")
    rows: list[list[Part]] = []
    for file in listed[:_MAX_FILES]:
        shown = format_size(file.size_bytes) if file.size_bytes is not None else "missing"
        style = "" if file.type == "weights" else "$muted"
        rows.append(
            [
                (pad(printable(file.name), max(8, width - 9)), style),
                (pad(shown, 9, right=True), "$bad" if file.size_bytes is None else style),
            ]
        )
    if len(listed) > _MAX_FILES:
        rows.append([(f"… and {plural(len(listed) - _MAX_FILES, 'more file')}", "$muted")])
    total = sum(file.size_bytes or 0 for file in listed)
    rows += [
        [("─" * width, "$line")],
        [
            (pad(plural(len(listed), "file"), max(8, width - 9)), "$muted"),
            (pad(format_size(total), 9, right=True), ""),
        ],
    ]
    return lines(rows)


def config(values: dict[str, Any] | None, width: int) -> Content:
    """Return the config tab: config.json with muted keys, truncated."""
    if values is None:
        return Content.styled("No readable config.json.", "$muted")
    text = json.dumps(values, indent=2, ensure_ascii=False, default=str)
    shown = text.split("\n")
    rows: list[list[Part]] = []
    for number, raw in enumerate(shown):
        if number == _MAX_CONFIG:
            rows.append([(f"… and {plural(len(shown) - number, 'more line')}", "$muted")])
            break
        safe = printable(raw)
        if len(safe) > 4 * width:
            safe = safe[: 4 * width] + " …"
        key, colon, value = safe.partition('": ')
        if colon and safe.lstrip().startswith('"'):
            rows.append([(key + '":', "$muted"), (" " + value, _value_style(value))])
        else:
            rows.append([(safe, _value_style(safe.strip()))])
    return lines(rows)


def _value_style(value: str) -> str:
    if value.startswith('"'):
        return "$good"
    if value[:1].isdigit() or value.startswith(("-", "true", "false", "null")):
        return "$accent"
    return ""


def placeholder(text: str) -> Content:
    """Return a muted line in place of content that is missing or loading."""
    return line([(text, "$muted")])
