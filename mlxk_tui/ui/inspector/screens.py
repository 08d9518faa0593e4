"""The inspector and the disk use as screens of their own, for terminals below 100 columns."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from mlxk_tui.services.conversation import models
from mlxk_tui.services.library import Changed, Entry
from mlxk_tui.ui.inspector import model_actions, model_keys, pull_actions
from mlxk_tui.ui.inspector.disk_usage import DiskUse
from mlxk_tui.ui.inspector.inspector import Inspector
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyLine
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.widgets.transient import Transient

WIDE = 100
"""From this many columns on there is room for a panel beside the table, as in the app's breakpoints."""
_BACK = Binding("escape,q", "dismiss", "Back", key_display="esc", id="details.back")


class InspectorScreen(Transient[None]):
    """One model, over the whole screen.

    Args:
        context: what every pane is given.
        key: the model.
        tab: the tab to open.
        below: the pane's own inspector, where it has one: this screen goes once that can be seen again.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        _BACK,
        model_keys.CHAT,
        model_keys.PULL,
        model_keys.VERIFY,
        model_keys.CLONE,
        model_keys.DELETE,
        model_keys.COPY_NAME,
        model_keys.COPY_PATH,
    ]
    AUTO_FOCUS = "#inspector-body"

    def __init__(self, context: Context, key: str, tab: str, below: Inspector | None = None) -> None:
        super().__init__()
        self._below = below
        self.context = context
        self._key = key
        self._tab = tab

    @property
    def entry(self) -> Entry | None:
        """The model."""
        return self.context.library.entries.get(self._key)

    def compose(self) -> ComposeResult:
        """Lay out the inspector."""
        library = self.context.library
        yield Inspector(
            library.cache,
            machine_bytes=lambda: library.machine_bytes,
            without_gpu=lambda: library.without_gpu,
            now=library.now,
            tab=self._tab,
            id="inspector",
        )
        yield TaskBar(self.context.tasks, stop_key="^c")  # escape leaves this screen
        yield KeyLine()

    def on_mount(self) -> None:
        """Show the model and follow it."""
        self.query_one(Inspector).show(self.entry)
        self.subscribe(self.context.library.changed, self._library_changed)

    def _library_changed(self, change: Changed) -> None:
        if self._key in change.removed:
            self.dismiss()
        elif self._key in change.updated:
            self.query_one(Inspector).show(self.entry)

    def on_screen_resume(self) -> None:
        """Leave when that was due while a dialog lay over this screen."""
        if self.entry is None:
            self.dismiss()
        else:
            self.on_resize()

    def on_resize(self) -> None:
        """Make way for the inspector below once the terminal is wide enough for both."""
        if self._below is not None and self.size.width >= WIDE:
            self._below.open(self.query_one(Inspector).tab)
            self.dismiss()

    def action_pull(self) -> None:
        """Fetch again what is missing, broken or older than on the hub."""
        if entry := self.entry:
            if reason := pull_actions.why_no_pull(self.context, [entry]):
                self.notify(reason, severity="warning", markup=False, timeout=4)
            else:
                pull_actions.pull_again(self, self.context, [entry])

    def action_verify(self) -> None:
        """Compare checksums."""
        if entry := self.entry:
            model_actions.verify_models(self, self.context, [entry])

    def action_chat(self) -> None:
        """Begin a chat with the model."""
        if reason := models.entry_disabled_reason(self.entry):
            self.notify(reason, severity="warning", markup=False, timeout=4)
        elif (entry := self.entry) is not None:
            model_actions.chat_with(self, entry)

    def action_clone(self) -> None:
        """Clone the model."""
        if entry := self.entry:
            model_actions.ask(self, model_actions.clone_model(self, self.context, entry))

    def action_delete(self) -> None:
        """Delete the model."""
        if entry := self.entry:
            model_actions.ask(self, model_actions.delete_models(self, self.context, [entry]))

    def action_copy_name(self) -> None:
        """Copy the name."""
        if entry := self.entry:
            model_actions.copy_name(self, [entry])

    def action_copy_path(self) -> None:
        """Copy the path."""
        if entry := self.entry:
            model_actions.copy_path(self, [entry])


class DiskUseScreen(Transient[None]):
    """Who takes the disk, over the whole screen."""

    BINDINGS: ClassVar[list[BindingType]] = [_BACK]
    AUTO_FOCUS = "DiskUse"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def compose(self) -> ComposeResult:
        """Lay out the panel."""
        yield DiskUse(id="disk-use")
        yield KeyLine()

    def on_resize(self) -> None:
        """Draw for the new width; make way for the panel of the pane once there is room for it."""
        if self.size.width >= WIDE:
            self.dismiss()
        self.call_after_refresh(self._draw)

    def on_screen_resume(self) -> None:
        """Leave when that was due while a dialog lay over this screen."""
        self.on_resize()

    def _draw(self) -> None:
        self.query_one(DiskUse).show(list(self.context.library.entries.values()))
