"""The form that asks where a model is to be cloned to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from textual import events, getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from mlxk_tui.library import Entry
from mlxk_tui.ops.format import printable
from mlxk_tui.widgets.text import lines, spaced_size
from mlxk_tui.widgets.transient import Transient


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
        return f"The path cannot be used: {error.strerror or 'input/output error'}."
    except ValueError:  # a character that no path can be encoded with
        return "The path holds a character that cannot be used."
    return None


class CloneDialog(ModalScreen[str | None], Transient[str | None]):
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
    problem = getters.query_one("#problem", Static)

    def __init__(self, entry: Entry, cache: Path, *, text: str | None = None, problem: str = "") -> None:
        super().__init__()
        self._entry = entry
        self._cache = cache
        self._text = f"./{entry.short}" if text is None else text
        self._problem = problem

    def compose(self) -> ComposeResult:
        """Lay out the form."""
        with Vertical(classes="dialog") as frame:
            frame.border_title = Content("Clone into a folder of your own")
            yield Static(
                lines(
                    [
                        [
                            (self._entry.short, "$strong"),
                            (f"  {spaced_size(self._entry.model.size_bytes)}", "$muted"),
                        ],
                        [("A plain copy to work on, apart from the cache.", "$muted")],
                    ]
                ),
                classes="dialog-text",
            )
            yield Input(self._text, id="target", compact=True, select_on_focus=False)
            yield Static(id="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button("Clone", id="proceed", variant="primary", compact=True)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say at once whether the folder will do."""
        if event.value != self._text:
            self._problem = ""
        wrong = self._problem or problem_with(event.value, self._cache)
        if wrong:
            self.problem.update(Content.styled(f"✗ {wrong}", "$bad"))
        else:
            self.problem.update(Content.styled(f"→ {printable(absolute(event.value))}", "$muted"))

    def on_input_submitted(self) -> None:
        """Go."""
        self._submit()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Go, or not."""
        if event.button.id == "proceed":
            self._submit()
        else:
            self.dismiss(None)

    def _submit(self) -> None:
        if problem_with(self.target.value, self._cache) is None:
            self.dismiss(self.target.value)
        else:
            self.target.focus()
            self.app.bell()

    def on_click(self, event: events.Click) -> None:
        """Leave when the click is outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        """Leave."""
        self.dismiss(None)
