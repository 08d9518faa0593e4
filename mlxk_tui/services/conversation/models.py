"""Which models of the cache can chat, and why the others cannot."""

from __future__ import annotations

from mlxk_tui.ops.cache.names import parse_spec, resolve
from mlxk_tui.ops.contract.terms import MemoryFit, ModelType
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.library import Entry, Library, ScanPhase

_ORDER = {ModelType.CHAT: 0, ModelType.UNKNOWN: 1, ModelType.BASE: 1}


def name_of(entry: Entry) -> str:
    """Return the full name of a model, as the engine and the store use it."""
    return entry.report.ref.name


def by_name(library: Library, name: str | None) -> Entry | None:
    """Return the model of a full name; None where it is not in the cache."""
    return next((entry for entry in library.entries.values() if name_of(entry) == name), None)


def is_missing(library: Library, name: str | None) -> bool:
    """Tell whether the model of a chat is no longer in the cache."""
    ready = library.phase is ScanPhase.READY
    return ready and name is not None and by_name(library, name) is None


def draft_name(library: Library, typed: str) -> str:
    """Return the full name that a typed draft model stands for.

    Raises:
        OpError: those of `Cache.find`, in the same words; `model_not_runnable` where it cannot run.
    """
    if library.phase is not ScanPhase.READY:
        return typed
    spec = parse_spec(typed)
    name = resolve([name_of(entry) for entry in library.entries.values()], spec.name).name
    if reason := disabled_reason(library, name):
        raise OpError(ErrorType.MODEL_NOT_RUNNABLE, reason)
    return f"{name}@{spec.revision}" if spec.revision else name


def can_chat(entry: Entry) -> bool:
    """Tell whether a model can chat here."""
    return entry.intact and entry.model.runtime_compatible and entry.model.model_type in _ORDER


def chat_models(library: Library) -> list[Entry]:
    """Return the models that can chat, those made for it first, then by name."""
    found = [entry for entry in library.entries.values() if can_chat(entry)]
    return sorted(found, key=lambda entry: (_ORDER[entry.model.model_type], entry.name.casefold()))


def suggested(library: Library) -> str | None:
    """Return the model of a first chat: the smallest chat model that fits comfortably."""
    found = [entry for entry in chat_models(library) if entry.model.memory_fit is not MemoryFit.TOO_LARGE]
    chat = [entry for entry in found if entry.model.model_type is ModelType.CHAT]
    best = min(chat or found, key=lambda entry: entry.model.size_bytes, default=None)
    return name_of(best) if best is not None else None


def disabled_reason(library: Library, name: str | None) -> str | None:
    """Return why a model cannot chat, as a sentence; None where it can, or is not in the cache."""
    entry = by_name(library, name)
    return entry_disabled_reason(entry) if entry is not None else None


def entry_disabled_reason(entry: Entry | None) -> str | None:
    """Return why a model cannot chat, as a sentence; None where it can."""
    if entry is None:
        return "No model is selected."
    if can_chat(entry):
        return None
    if entry.model.model_type is ModelType.EMBEDDING:
        return f"{entry.short} is an embedding model and cannot chat."
    if not entry.intact:
        return f"{entry.short} is broken. The Health pane says why."
    return f"{entry.short} cannot run here: {printable(entry.model.reason or 'unknown reason.')}"
