"""The form for the target folder of a clone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import getters
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, Static

from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.services.library import Entry
from mlxk_tui.ui.widgets.form import Form
from mlxk_tui.ui.widgets.text import Part, lines


def absolute(text: str) -> str:
    """Return a typed path as an absolute path."""
    return os.path.abspath(os.path.expanduser(text.strip()))


def problem_with(text: str, cache: Path) -> str | None:
    """Return why a folder can't be the target of a clone, as a sentence; None if it can.

    Args:
        text: the typed path.
        cache: the cache's folder, which can't hold clones.
    """
    if not text.strip():
        return "Enter a folder."
    if "\0" in text:
        return "A path can't contain a NUL character."
    user = text.strip().partition(os.sep)[0]
    if user.startswith("~") and os.path.expanduser(user) == user:
        return f"Unknown user: {printable(user[1:])}"
    path = Path(absolute(text))
    try:
        real = Path(os.path.realpath(path))
        if cache.exists() and any(
            folder.exists() and folder.samefile(cache) for folder in (real, *real.parents)
        ):
            return "This folder is inside the cache."
        if path.is_dir() and path.samefile(os.curdir):
            return "This is the current folder."
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            return f"{printable(path.name)} already exists and is not a folder."
        if path.is_dir() and any(path.iterdir()):
            return f"{printable(path.name)} already exists and is not empty."
        parent = path.parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            return f"{printable(str(parent))} is not a folder."
        if not os.access(parent, os.W_OK | os.X_OK):
            return f"{printable(str(parent))} is not writable."
    except OSError as error:
        return f"Can't use this path: {error_reason(error)}."
    except ValueError:  # a character that the file system's encoding lacks
        return "The path contains an unsupported character."
    return None


class CloneDialog(Form[str]):
    """Returns the target folder as typed, or None if cancelled.

    Args:
        entry: the model.
        cache: the cache's folder.
        text: the initial folder; by default one named after the model.
        problem: why the last attempt failed; shown until the folder is changed.
    """

    BINDING_GROUP_TITLE = "Clone dialog"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="clone.cancel"),
    ]
    AUTO_FOCUS = "#target"

    target = getters.query_one("#target", Input)

    def __init__(self, entry: Entry, cache: Path, *, text: str | None = None, problem: str = "") -> None:
        super().__init__("Clone to a folder", proceed="Clone")
        self._entry = entry
        self._cache = cache
        self._text = f"./{entry.short}" if text is None else text
        self._problem = problem

    def fields(self) -> Iterable[Widget]:
        name, size = self._entry.short, format_size(self._entry.model.size_bytes)
        rows: list[list[Part]] = [
            [(name, "$strong"), (f"  {size}", "$muted")],
            [("Creates a copy outside the cache.", "$muted")],
        ]
        yield Static(lines(rows), classes="dialog-text")
        yield Input(self._text, id="target", compact=True, select_on_focus=False)

    def validate(self) -> tuple[bool, str]:
        text = self.target.value
        if text != self._text:
            self._problem = ""
        problem = self._problem or problem_with(text, self._cache)
        return (False, problem) if problem else (True, f"→ {printable(absolute(text))}")

    def result(self) -> str:
        return self.target.value

    def submit(self) -> None:
        """Submit, also a folder that failed before."""
        self._problem = ""
        super().submit()

    def focus_invalid(self) -> None:
        self.target.focus()
