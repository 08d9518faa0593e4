"""The Health pane: everything unsound first, each finding with its cause, its file and its fix."""

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
    """Findings of the whole cache."""

    pane_id = "health"
    AUTO_FOCUS = "#health-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        model_keys.PULL,
        model_keys.VERIFY,
        Binding(
            "V",
            "verify_all",
            "Verify all",
            id="health.verify_all",
            tooltip="Read every byte of every model and compare it with its checksum",
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
        """Lay out the pane."""
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
        """Draw findings and counts."""
        del change
        library = self.context.library
        self.findings.show(library.entries.values())
        self.panel.set_class(not library.entries, "-message")
        counts: list[Part] = []
        for state, word in (
            (ModelState.BAD, "unsound"),
            (ModelState.DOWNLOADING, "arriving"),
            (ModelState.ATTENTION, "won't run or tight"),
            (ModelState.GOOD, "sound"),
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
        if library.entries or empty_states.show_unread(view, library, reading="Looking at every model"):
            return
        later = "Models appear here as soon as the cache holds some."
        view.show("◇", "Nothing to judge yet", [later, empty_states.where(library)])

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        """Know which keys work for the model under the cursor."""
        event.stop()
        self.update_keys()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Open the model's inspector at its health."""
        event.stop()
        self.app.push_screen(InspectorScreen(self.context, event.key, "health"))

    # -- actions -----------------------------------------------------------------------------------

    def why_not(self, action: str) -> str | None:
        """Return why an action is not possible now."""
        if action == "push":
            return pull_actions.why_no_push(self.context)
        needs_models = {"pull", "verify", "verify_all", "delete", "prune", "copy_name", "copy_path"}
        if action in needs_models and (reason := self.why_nothing()):
            return reason
        if action in {"pull", "verify", "delete", "copy_name", "copy_path"} and self.selected is None:
            return "No model is selected."
        if action == "pull" and self.selected is not None:
            return pull_actions.why_no_pull(self.context, [self.selected])
        return None

    def action_pull(self) -> None:
        """Fetch again what is missing or broken."""
        if entry := self.selected:
            pull_actions.pull_again(self, self.context, [entry])

    def action_push(self) -> None:
        """Push a folder."""
        pull_actions.push_folder(self, self.context)

    def action_verify(self) -> None:
        """Compare the checksums of the model under the cursor."""
        if entry := self.selected:
            model_actions.verify_models(self, self.context, [entry])

    def action_verify_all(self) -> None:
        """Compare the checksums of every model."""
        model_actions.verify_models(self, self.context, list(self.context.library.entries.values()))

    def action_delete(self) -> None:
        """Delete the model under the cursor."""
        if entry := self.selected:
            model_actions.ask(self, model_actions.delete_models(self, self.context, [entry]))

    def action_prune(self) -> None:
        """Prune the cache."""
        model_actions.ask(self, model_actions.prune_cache(self, self.context))

    @work(group="rescan", exclusive=True, exit_on_error=False)
    async def action_rescan(self) -> None:
        """Read the cache again."""
        await model_actions.rescan(self, self.context)

    def action_copy_name(self) -> None:
        """Copy the model's name."""
        if entry := self.selected:
            model_actions.copy_name(self, [entry])

    def action_copy_path(self) -> None:
        """Copy the model's path."""
        if entry := self.selected:
            model_actions.copy_path(self, [entry])

    def action_leave(self) -> None:
        """Stop the running task."""
        self.stop_task()
