"""The form that asks where a model is to be cloned to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from textual import getters
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, Static

from mlxk_tui.ops.core.os_errors import reason_of
from mlxk_tui.ops.core.text import printable, spaced_size
from mlxk_tui.services.library import Entry
from mlxk_tui.ui.widgets.form import Form
from mlxk_tui.ui.widgets.text import Part, lines


def absolute(text: str) -> str:
    """Return the folder that was typed as an absolute path."""
    return os.path.abspath(os.path.expanduser(text.strip()))


def problem_with(text: str, cache: Path) -> str | None:
    """Return why a folder cannot be a clone's target, as a sentence; None where `ops.clone` takes it.

    Args:
        text: what was typed.
        cache: the cache's folder, in which nothing is cloned.
    """
    if not text.strip():
        return "Give a folder."
    if "\0" in text:
        return "A path cannot hold a NUL character."
    user = text.strip().partition(os.sep)[0]
    if user.startswith("~") and os.path.expanduser(user) == user:
        return f"There is no user {printable(user[1:])} here."
    path = Path(absolute(text))
    try:
        real = Path(os.path.realpath(path))
        if cache.exists() and any(
            folder.exists() and folder.samefile(cache) for folder in (real, *real.parents)
        ):
            return "This lies inside the cache."
        if path.is_dir() and path.samefile(os.curdir):
            return "This is the folder you are in."
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            return f"{printable(path.name)} is there already and is not a folder."
        if path.is_dir() and any(path.iterdir()):
            return f"{printable(path.name)} is there already and is not empty."
        parent = path.parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir():
            return f"{printable(str(parent))} is not a folder."
        if not os.access(parent, os.W_OK | os.X_OK):
            return f"{printable(str(parent))} cannot be written to."
    except OSError as error:
        return f"The path cannot be used: {reason_of(error)}."
    except ValueError:  # a character that no path can be encoded with
        return "The path holds a character that cannot be used."
    return None


class CloneDialog(Form[str]):
    """Answers with the folder as it was typed, or None.

    Args:
        entry: the model.
        cache: the cache's folder.
        text: the folder that stands in the form at first.
        problem: why the last attempt failed; stands below until something else is typed.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="clone.cancel"),
    ]
    AUTO_FOCUS = "#target"

    target = getters.query_one("#target", Input)

    def __init__(self, entry: Entry, cache: Path, *, text: str | None = None, problem: str = "") -> None:
        super().__init__("Clone into a folder of your own", proceed="Clone")
        self._entry = entry
        self._cache = cache
        self._text = f"./{entry.short}" if text is None else text
        self._problem = problem

    def fields(self) -> Iterable[Widget]:
        """Return what is cloned, and the field."""
        name, large = self._entry.short, spaced_size(self._entry.model.size_bytes)
        rows: list[list[Part]] = [
            [(name, "$strong"), (f"  {large}", "$muted")],
            [("A plain copy to work on, apart from the cache.", "$muted")],
        ]
        yield Static(lines(rows), classes="dialog-text")
        yield Input(self._text, id="target", compact=True, select_on_focus=False)

    def judge(self) -> tuple[bool, str]:
        """Tell whether the folder will do, and which it is."""
        text = self.target.value
        if text != self._text:
            self._problem = ""
        wrong = self._problem or problem_with(text, self._cache)
        return (False, wrong) if wrong else (True, f"→ {printable(absolute(text))}")

    def answer(self) -> str:
        """Return the folder as it was typed."""
        return self.target.value

    def submit(self) -> None:
        """Send it; what failed before may be tried again."""
        self._problem = ""
        super().submit()

    def refused(self) -> None:
        """Go back to the field."""
        self.target.focus()
