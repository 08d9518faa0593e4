"""The inspector and the disk usage as full screens, for terminals below 100 columns."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from mlxk_tui.services.conversation import models
from mlxk_tui.services.library import Changed, Entry
from mlxk_tui.ui.inspector import model_actions, model_keys, pull_actions
from mlxk_tui.ui.inspector.disk_usage import DiskUsage
from mlxk_tui.ui.inspector.inspector import Inspector
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyFooter
from mlxk_tui.ui.shell.task_bar import TaskBar
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen

WIDE = 100
"""Columns from which a panel fits beside the table; equal to the app's breakpoint."""
_BACK = Binding("escape,q", "dismiss", "Back", key_display="esc", id="details.back")


class InspectorScreen(OverlayScreen[None]):
    """One model on the full screen.

    Args:
        context: the app's services.
        key: key of the model.
        tab: id of the tab to open.
        below: the inspector of the pane below, if it has one: this screen closes once there is room for that.
    """

    BINDING_GROUP_TITLE = "Inspector on a narrow terminal"
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
        """The model; None once it was removed."""
        return self.context.library.entries.get(self._key)

    def compose(self) -> ComposeResult:
        library = self.context.library
        yield Inspector(
            library.cache,
            machine_bytes=lambda: library.machine_bytes,
            without_gpu=lambda: library.without_gpu,
            now=library.now,
            tab=self._tab,
            id="inspector",
        )
        yield TaskBar(self.context.tasks, stop_key="^c")  # escape closes this screen
        yield KeyFooter()

    def on_mount(self) -> None:
        self.query_one(Inspector).show(self.entry)
        self.subscribe(self.context.library.changed, self._library_changed)

    def _library_changed(self, change: Changed) -> None:
        if self._key in change.removed:
            self.dismiss()
        elif self._key in change.updated:
            self.query_one(Inspector).show(self.entry)

    def on_screen_resume(self) -> None:
        """Close if the model was removed while a dialog was open."""
        if self.entry is None:
            self.dismiss()
        else:
            self.on_resize()

    def on_resize(self) -> None:
        """Close once there is room for the inspector of the pane below."""
        if self._below is not None and self.size.width >= WIDE:
            self._below.open(self.query_one(Inspector).tab)
            self.dismiss()

    def action_pull(self) -> None:
        if entry := self.entry:
            if reason := pull_actions.pull_disabled_reason(self.context, [entry]):
                self.notify(reason, severity="warning", markup=False, timeout=4)
            else:
                pull_actions.pull_entries(self, self.context, [entry])

    def action_verify(self) -> None:
        if entry := self.entry:
            model_actions.verify_models(self, self.context, [entry])

    def action_chat(self) -> None:
        if reason := models.entry_disabled_reason(self.entry):
            self.notify(reason, severity="warning", markup=False, timeout=4)
        elif (entry := self.entry) is not None:
            model_actions.start_chat(self, entry)

    def action_clone(self) -> None:
        if entry := self.entry:
            model_actions.run_dialog(self, model_actions.clone_model(self, self.context, entry))

    def action_delete(self) -> None:
        if entry := self.entry:
            model_actions.run_dialog(self, model_actions.delete_models(self, self.context, [entry]))

    def action_copy_name(self) -> None:
        if entry := self.entry:
            model_actions.copy_name(self, [entry])

    def action_copy_path(self) -> None:
        if entry := self.entry:
            model_actions.copy_path(self, [entry])


class DiskUsageScreen(OverlayScreen[None]):
    """The disk usage on the full screen."""

    BINDING_GROUP_TITLE = "Disk usage"
    BINDINGS: ClassVar[list[BindingType]] = [_BACK]
    AUTO_FOCUS = "DiskUsage"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context

    def compose(self) -> ComposeResult:
        yield DiskUsage(id="disk-use")
        yield KeyFooter()

    def on_resize(self) -> None:
        """Close once there is room for the panel of the pane below."""
        if self.size.width >= WIDE:
            self.dismiss()
        self.call_after_refresh(self._draw)

    def on_screen_resume(self) -> None:
        """Close if the terminal was resized while a dialog was open."""
        self.on_resize()

    def _draw(self) -> None:
        self.query_one(DiskUsage).show(list(self.context.library.entries.values()))
