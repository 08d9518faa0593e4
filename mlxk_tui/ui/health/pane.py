"""The Health pane: broken models first, each finding with its cause, its file and its fix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import getters, work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget

from mlxk_tui.services.library import Changed, Entry, ModelState
from mlxk_tui.ui.health.findings import HealthList
from mlxk_tui.ui.inspector import model_actions, model_keys, pull_actions
from mlxk_tui.ui.inspector.screens import InspectorScreen
from mlxk_tui.ui.shell import empty_states
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView
from mlxk_tui.ui.widgets.text import Part, line


class HealthPane(Pane):
    """The findings of all models in the cache."""

    pane_id = "health"
    AUTO_FOCUS = "#health-list"
    BINDING_GROUP_TITLE = "Health"
    BINDINGS: ClassVar[list[BindingType]] = [
        model_keys.PULL,
        model_keys.VERIFY,
        Binding(
            "V",
            "verify_all",
            "Verify all",
            id="health.verify_all",
            tooltip="Verify the checksums of all models",
        ),
        model_keys.DELETE,
        model_keys.PRUNE,
        model_keys.COPY_NAME,
        model_keys.COPY_PATH,
        model_keys.RESCAN,
        model_keys.PUSH,
        Binding("escape", "leave", "Back", show=False, id="health.leave"),
    ]

    findings = getters.query_one("#health-list", HealthList)
    panel = getters.query_one("#health-panel", Vertical)
    message = getters.query_one("#health-message", StateView)

    def body(self) -> Iterable[Widget]:
        panel = Vertical(
            HealthList(now=self.context.library.now, id="health-list"),
            StateView(id="health-message"),
            id="health-panel",
        )
        panel.border_title = "Health"
        yield panel

    @property
    def selected(self) -> Entry | None:
        """The model under the cursor."""
        return self.context.library.entries.get(self.findings.cursor_key or "")

    def draw_library(self, change: Changed) -> None:
        del change
        library = self.context.library
        self.findings.show(library.entries.values())
        self.panel.set_class(not library.entries, "-message")
        counts: list[Part] = []
        for state, word in (
            (ModelState.BAD, "broken"),
            (ModelState.DOWNLOADING, "downloading"),
            (ModelState.ATTENTION, "need attention"),
            (ModelState.GOOD, "healthy"),
        ):
            if count := library.count(state):
                counts += [(f"{state.glyph} {count} ", state.style), (f"{word}   ", "$muted")]
        if counts:
            counts[-1] = (counts[-1][0].rstrip(), counts[-1][1])
        self.panel.border_subtitle = line(counts) if counts else Content("")
        self._draw_message()
        self.update_keys()

    def _draw_message(self) -> None:
        library, view = self.context.library, self.message
        if library.entries or empty_states.show_scan_state(view, library, loading="Checking models"):
            return
        hint = "Models appear here once the cache has some."
        view.show("◇", "No models to check", [hint, empty_states.cache_path(library)])

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        event.stop()
        self.update_keys()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        """Open the Health tab of the model's inspector."""
        event.stop()
        self.app.push_screen(InspectorScreen(self.context, event.key, "health"))

    # -- actions -----------------------------------------------------------------------------------

    def disabled_reason(self, action: str) -> str | None:
        if action == "push":
            return pull_actions.push_disabled_reason(self.context)
        needs_models = {"pull", "verify", "verify_all", "delete", "prune", "copy_name", "copy_path"}
        if action in needs_models and (reason := self.no_models_reason()):
            return reason
        if action in {"pull", "verify", "delete", "copy_name", "copy_path"} and self.selected is None:
            return "No model selected."
        if action == "pull" and self.selected is not None:
            return pull_actions.pull_disabled_reason(self.context, [self.selected])
        return None

    def action_pull(self) -> None:
        if entry := self.selected:
            pull_actions.pull_entries(self, self.context, [entry])

    def action_push(self) -> None:
        pull_actions.open_push_form(self, self.context)

    def action_verify(self) -> None:
        if entry := self.selected:
            model_actions.verify_models(self, self.context, [entry])

    def action_verify_all(self) -> None:
        model_actions.verify_models(self, self.context, list(self.context.library.entries.values()))

    def action_delete(self) -> None:
        if entry := self.selected:
            model_actions.run_dialog(self, model_actions.delete_models(self, self.context, [entry]))

    def action_prune(self) -> None:
        model_actions.run_dialog(self, model_actions.prune_cache(self, self.context))

    @work(group="rescan", exclusive=True, exit_on_error=False)
    async def action_rescan(self) -> None:
        await model_actions.rescan(self, self.context)

    def action_copy_name(self) -> None:
        if entry := self.selected:
            model_actions.copy_name(self, [entry])

    def action_copy_path(self) -> None:
        if entry := self.selected:
            model_actions.copy_path(self, [entry])

    def action_leave(self) -> None:
        """Stop the latest task."""
        self.stop_task()
