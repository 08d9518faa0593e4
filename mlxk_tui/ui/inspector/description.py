"""What the inspector and the health list say about a model, as inert content of a given width."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from textual.content import Content

from mlxk_tui.ops.cache.names import is_clean
from mlxk_tui.ops.contract.terms import FindingCode, Fix, Framework, Health, MemoryFit, ModelType, Severity
from mlxk_tui.ops.core.text import age, beside, plural, printable, size, spaced_size
from mlxk_tui.services.library import Entry, ModelState
from mlxk_tui.ui.widgets.text import (
    FIT_STYLES,
    FIT_WORDS,
    Part,
    cut,
    gauge,
    line,
    lines,
    pad,
    quant_phrase,
    wrap,
)

if TYPE_CHECKING:
    from mlxk_tui.ops.contract.results import Finding, ModelFile

_LABEL = 13
_GAUGE = 10
_MAX_FILES = 500
_MAX_CONFIG = 400
"""Lines shown; more is a file for an editor."""

ARRIVING = "The Transfers pane shows how far it is."
"""What is said in place of findings while a model is being pulled: what it lacks is on its way."""
_TYPES = {ModelType.CHAT: "chat", ModelType.EMBEDDING: "embedding", ModelType.BASE: "base"}


def verdict(entry: Entry) -> tuple[ModelState, str]:
    """Return the state of a model and the sentence for it."""
    if entry.state is ModelState.DOWNLOADING:
        return ModelState.DOWNLOADING, "Being downloaded"
    if not entry.intact:
        return ModelState.BAD, "Not sound"
    if not entry.model.runtime_compatible:
        return ModelState.ATTENTION, "Sound, but it will not run here"
    if entry.model.memory_fit is MemoryFit.TOO_LARGE:
        return ModelState.ATTENTION, "Sound, but too large for this machine"
    if entry.model.memory_fit is MemoryFit.TIGHT:
        return ModelState.ATTENTION, "Sound; memory will be tight"
    return ModelState.GOOD, "Sound and ready to run"


def fix_phrase(finding: Finding, name: str) -> str:
    """Return what mends a finding, as something to do now; empty where nothing can be done."""
    if finding.fix is Fix.PULL:
        return "fetch again what is broken (p)" if is_clean(name) else "fetch it again under its own name"
    return {
        Fix.REMOVE: "remove the model (d)",
        Fix.PRUNE: "prune what downloads left behind (x)",
        Fix.UPGRADE: "install a newer mlx-lm: pip install -U mlx-lm",
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


def finding_rows(finding: Finding, name: str, width: int, sigil: str = "") -> list[list[Part]]:
    """Return a finding as lines: the cause, the file. `sigil` stands before each token name."""
    glyph, token = _SEVERITY[finding.severity]
    if finding.code in _RUNTIME:  # the files are sound: it is not an error of the cache
        glyph, token = "▲", "attention"
    room = width - 2
    rows: list[list[Part]] = []
    for number, text in enumerate(wrap(printable(finding.message), room)):
        rows.append([(f"{glyph} " if number == 0 else "  ", f"{sigil}{token}"), (text, "")])
    path = beside(finding.message, finding.path)
    if path is not None:
        rows.append([("  ", ""), (cut(path, room), f"{sigil}muted")])
    return rows


def findings_rows(
    findings: Sequence[Finding], name: str, width: int, sigil: str = "", limit: int = 100
) -> list[list[Part]]:
    """Return findings as lines; neighbours that the same thing mends share one line that says so."""
    rows: list[list[Part]] = []
    shown = findings[:limit]
    for number, finding in enumerate(shown):
        rows += finding_rows(finding, name, width, sigil)
        fix = fix_phrase(finding, name)
        last = number == len(shown) - 1
        if fix and (last or fix_phrase(shown[number + 1], name) != fix):
            for count, text in enumerate(wrap(fix, width - 4)):
                arrow = "→ " if count == 0 else "  "
                rows.append([("  ", ""), (arrow, f"{sigil}accent"), (text, f"{sigil}muted")])
    if len(findings) > limit:
        rows.append([("  ", ""), (f"… and {plural(len(findings) - limit, 'more finding')}", f"{sigil}muted")])
    return rows


def memory_gauge(needed: int, machine: int, fit: MemoryFit | None, width: int) -> list[list[Part]]:
    """Return the memory fit: what is needed, what there is, a gauge and the word; two lines if it must be."""
    style = FIT_STYLES.get(fit, "$muted") if fit else "$muted"
    full, empty = gauge(needed / machine if machine else 0, _GAUGE)
    text = f"needs {spaced_size(needed)} of {spaced_size(machine)}"
    word = f"  {FIT_WORDS[fit]}" if fit else ""
    drawn: list[Part] = [(full, style), (empty, "$line"), (word, style)]
    if cell_len(text) + 3 + _GAUGE + cell_len(word) <= width:
        return [[(text + "   ", ""), *drawn]]
    return [[(text, "")], drawn]


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
        machine_bytes: memory that models can use here, in bytes.
        now: for ages.
        width: of a line, in cells.
        in_turn: the sentence that its requests take turns, where they do.
        without_gpu: models run on the CPU alone.
    """
    model = entry.model
    state, words = verdict(entry)
    kind = [part for part in (model.framework.value, _TYPES.get(model.model_type)) if part]
    if model.framework is Framework.UNKNOWN:
        kind[0] = "no weights that are known"
    org = f"{entry.org}/" if entry.org else ""
    if cell_len(org + entry.short) <= width:
        rows: list[list[Part]] = [[(org, "$muted"), (entry.short, "$strong bold")]]
    else:
        rows = [[(text, "$muted")] for text in wrap(org, width) if org]
        rows += [[(text, "$strong bold")] for text in wrap(entry.short, width)]
    rows += [[(text, "$muted")] for text in wrap(" · ".join(kind), width)]
    rows += [[], [(f"{state.glyph} ", state.style), (words, state.style)]]
    # The findings know of checksums too, which the model's own reason does not.
    first = next((f.message for f in entry.findings if f.severity is Severity.ERROR), model.reason)
    if state is ModelState.DOWNLOADING:
        first = ARRIVING
    if state is not ModelState.GOOD and first:
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(printable(first), width - 2)]
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
        as_float32 = f"{spaced_size(model.memory_float32_bytes)} as float32, if it fits"
        rows += [[(text, "$muted")] for text in wrap(as_float32, width)]
    return rows


def _facts(entry: Entry, now: datetime) -> list[tuple[str, str, str]]:
    model, facts = entry.model, entry.report.facts
    rows: list[tuple[str, str, str]] = []
    if model.quantization is not None:
        rows.append(("Quantisation", quant_phrase(model.quantization), ""))
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
    rows.append(("Size", spaced_size(model.size_bytes), "this revision"))
    rows.append(("On disk", spaced_size(model.disk_bytes), plural(model.revisions, "revision")))
    exact = f"{model.last_modified[:16].replace('T', ' ')} UTC"
    ago = age(model.last_modified, now)
    rows.append(("Modified", exact, "") if exact.startswith(ago) else ("Modified", ago, exact))
    if model.hash:
        rows.append(("Commit", printable(model.hash)[:12], ""))
    if facts.license:
        rows.append(("Licence", printable(facts.license), ""))
    if facts.tags:
        rows.append(("Tags", printable(", ".join(facts.tags[:12])), ""))
    return rows


def health(entry: Entry, now: datetime, width: int) -> Content:
    """Return the health tab: the verdict, every finding, and what a checksum run found."""
    state, words = verdict(entry)
    rows: list[list[Part]] = [[(f"{state.glyph} ", state.style), (words, f"{state.style} bold")]]
    if state is ModelState.DOWNLOADING:
        rows += [[("  ", ""), (text, "$muted")] for text in wrap(ARRIVING, width - 2)]
    elif entry.findings:
        rows += [[], *findings_rows(entry.findings, entry.model.name, width, "$")]
    rows.append([])
    if entry.verified is None:
        hint = "Checksums were not compared yet. Press v to read every byte."
        rows += [[(text, "$muted")] for text in wrap(hint, width)]
    else:
        rows += [[(text, "$muted")] for text in wrap(checksum_sentence(entry, now), width)]
    if entry.model.health is Health.HEALTHY and not entry.findings:
        rows.insert(1, [("  Every file is there, whole and readable.", "$muted")])
    return lines(rows)


def checksum_sentence(entry: Entry, now: datetime) -> str:
    """Return what the last checksum run found, in a sentence."""
    verified = entry.verified
    if verified is None:
        return ""
    sums = verified.result.checksums
    when = age(datetime.fromtimestamp(verified.at, now.tzinfo).strftime("%Y-%m-%dT%H:%M:%SZ"), now)
    if not sums.files:
        text = f"Verified {when}: no file with a checksum to compare"
    else:
        wrong = f"{sums.mismatched:,} wrong" if sums.mismatched else "none wrong"
        text = f"Checksums compared {when}: {plural(sums.files, 'file')}, {spaced_size(sums.bytes)}, {wrong}"
    if sums.unverifiable:
        text += f"; {plural(sums.unverifiable, 'file')} without a checksum"
    return text + "."


def files(listed: Sequence[ModelFile], width: int) -> Content:
    """Return the files tab: one line a file, sizes flush right, the total below."""
    if not listed:
        return Content.styled("This revision has no files.", "$muted")
    rows: list[list[Part]] = []
    for file in listed[:_MAX_FILES]:
        shown = size(file.size_bytes) if file.size_bytes is not None else "missing"
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
            (pad(size(total), 9, right=True), ""),
        ],
    ]
    return lines(rows)


def config(values: dict[str, Any] | None, width: int) -> Content:
    """Return the config tab: config.json, keys muted, cut at a readable length."""
    if values is None:
        return Content.styled("There is no config.json that can be read.", "$muted")
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


def busy(text: str) -> Content:
    """Return the quiet line that stands while something loads."""
    return line([(text, "$muted")])
