"""The Models pane: every repo of the cache in a table, with an inspector beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from textual import getters, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget

from mlxk_tui.ops.catalog.filters import FIELDS
from mlxk_tui.ops.contract.terms import Framework, Health
from mlxk_tui.ops.core.text import plural, spaced_size
from mlxk_tui.services.conversation import models
from mlxk_tui.services.library import Changed, Entry, ScanPhase
from mlxk_tui.transfers.starters import STARTERS
from mlxk_tui.ui.inspector import model_actions, model_keys, pull_actions
from mlxk_tui.ui.inspector.disk_usage import DiskUse
from mlxk_tui.ui.inspector.inspector import Inspector
from mlxk_tui.ui.inspector.screens import WIDE, DiskUseScreen, InspectorScreen
from mlxk_tui.ui.models.filter_bar import FilterBar, FilterInput
from mlxk_tui.ui.models.table import COLUMN_IDS, COLUMNS, ModelTable, TableHeader, sorted_entries
from mlxk_tui.ui.shell import empty_states
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView

_PATIENCE_SECONDS = 0.4


class ModelsPane(Pane):
    """Table and inspector."""

    pane_id = "models"
    AUTO_FOCUS = "#table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "filter",
            "Filter",
            key_display="/",
            id="models.filter",
            tooltip=f"Filter by words of the name and by {', '.join(FIELDS)}",
        ),
        model_keys.CHAT,
        model_keys.PULL,
        model_keys.VERIFY,
        model_keys.CLONE,
        model_keys.DELETE,
        model_keys.COPY_NAME,
        model_keys.COPY_PATH,
        Binding("s", "sort_next", "Sort", show=False, id="models.sort", tooltip="Sort by the next column"),
        Binding("S", "sort_turn", "Reverse the order", show=False, id="models.sort_reverse"),
        Binding("u", "disk_use", "Disk", show=False, id="models.disk_use", tooltip="Who takes the disk"),
        replace(model_keys.PRUNE, show=False),  # the footer has no room for it at 80 columns
        model_keys.RESCAN,
        model_keys.PUSH,
        Binding(
            "m",
            "show_all",
            "MLX only or all",
            show=False,
            id="models.show_all",
            tooltip="Show only models made for MLX, or everything",
        ),
        Binding("escape", "leave", "Back", show=False, id="models.leave"),
    ]

    table = getters.query_one("#table", ModelTable)
    columns = getters.query_one("#table-header", TableHeader)
    inspector = getters.query_one("#inspector", Inspector)
    disk_use = getters.query_one("#disk-use", DiskUse)
    filter_bar = getters.query_one(FilterBar)
    panel = getters.query_one("#models-panel", Vertical)
    message = getters.query_one("#models-message", StateView)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sort: str = context.settings.sort
        self._reverse = context.settings.sort_reverse
        self._show_all = context.settings.show_all
        self._shown: list[Entry] = []
        self._patience_over = False

    def body(self) -> Iterable[Widget]:
        """Lay out the pane."""
        library = self.context.library
        header, table = TableHeader(id="table-header"), ModelTable(now=library.now, id="table")
        panel = Vertical(
            FilterBar(self.context.settings.filter),
            header,
            table,
            StateView(id="models-message"),
            id="models-panel",
        )
        panel.border_title = "Models"
        inspector = Inspector(
            library.cache,
            machine_bytes=lambda: library.machine_bytes,
            without_gpu=lambda: library.without_gpu,
            now=library.now,
            id="inspector",
        )
        yield Horizontal(panel, inspector, DiskUse(id="disk-use"), id="models-body")

    def on_mount(self) -> None:
        """Show the sort order of the settings."""
        self.columns.show_sort(self._sort, reverse=self._reverse)
        self.disk_use.display = False
        self.set_timer(_PATIENCE_SECONDS, self._say_what_happens)

    # -- drawing -----------------------------------------------------------------------------------

    def forget(self, change: Changed) -> None:
        """Take marks of removed repos away."""
        self.table.forget(change.removed)

    def draw_library(self, change: Changed) -> None:
        """Draw table, messages and inspector."""
        entries = [
            entry
            for entry in self.context.library.entries.values()
            if (self._show_all or entry.model.framework is Framework.MLX)
            and self.filter_bar.filter.matches(entry.model)
        ]
        self._shown = sorted_entries(entries, self._sort, reverse=self._reverse)
        self.table.show(self._shown)
        self._draw_message()
        self._draw_counts()
        if self.table.cursor_key in change.updated:
            self.inspector.show(self.selected)
        if self.disk_use.display:
            self.disk_use.show(list(self.context.library.entries.values()))
        self.update_keys()

    def on_resize(self) -> None:
        """Give the focus back to the table when what has it is not shown at this width."""
        focused = self.focused
        beside = {self.inspector, self.disk_use}
        if self.size.width < WIDE and (focused is None or beside.intersection(focused.ancestors_with_self)):
            self.table.focus()

    def _say_what_happens(self) -> None:
        self._patience_over = True
        self._draw_message()

    def _draw_message(self) -> None:
        library = self.context.library
        filtered = bool(self.filter_bar.filter.text) or not self._show_all
        view = self.message
        # While the first models are being judged an empty table stands: no flash of a message.
        begun = library.phase is not ScanPhase.LOADING or self._patience_over
        self.panel.set_class(not self._shown and begun, "-message")
        self.query_one("#models-body").set_class(not library.entries and begun, "-empty")
        if self._shown or not begun:
            return
        if empty_states.show_unread(view, library, reading="Reading the cache"):
            return
        if library.entries and filtered:
            keys = [("esc", "clear the filter")] if self.filter_bar.filter.text else []
            keys += [] if self._show_all else [("m", "show what is not made for MLX")]
            view.show(
                "∅", "No model matches", [f"{plural(len(library.entries), 'model')} in the cache."], keys=keys
            )
        else:
            state = "is empty" if library.cache.root.exists() else "does not exist yet"
            view.show(
                "◇",
                "No models yet",
                [
                    f"{empty_states.where(library)} {state}.",
                    "",
                    "Begin with a small one:",
                    *(f"{starter.name}  {spaced_size(starter.size_bytes)}" for starter in STARTERS),
                ],
                keys=[("p", "choose and pull"), ("r", "look again")],
            )

    def _draw_counts(self) -> None:
        marks = self._marked
        hidden = len(self.table.marks) - len(marks)
        total = len(self.context.library.entries)
        counted = f"{len(self._shown):,} of {total:,}"
        self.filter_bar.draw_answer(counted)
        if marks or hidden:
            taken = spaced_size(sum(entry.model.disk_bytes for entry in marks))
            text = f"◆ {len(marks):,} marked · {taken}" if marks else "◆"
            text += f"{' · ' if marks else ' '}{hidden:,} marked hidden by the filter" if hidden else ""
        elif len(self._shown) < total:
            text = f"{counted} · {spaced_size(sum(entry.model.disk_bytes for entry in self._shown))}"
        else:
            text = f"{self.table.cursor + 1:,}/{total:,}" if total else ""
        self.panel.border_subtitle = Content(text)

    # -- what is selected --------------------------------------------------------------------------

    @property
    def selected(self) -> Entry | None:
        """The model under the cursor."""
        return self.context.library.entries.get(self.table.cursor_key or "")

    @property
    def _marked(self) -> list[Entry]:
        """The marked models that are shown, in the order of the table."""
        return [entry for entry in self._shown if entry.key in self.table.marks]

    @property
    def chosen(self) -> list[Entry]:
        """What actions act on: the marked models that are shown, or the one under the cursor."""
        return self._marked or ([self.selected] if self.selected else [])

    def select(self, key: str) -> None:
        """Put the cursor on a model, the filter cleared where it hides it."""
        if key not in self.table.keys:
            self.filter_bar.clear()
            self._show_all = True
            self.filter_bar.filter = type(self.filter_bar.filter)()
            self.draw_library(Changed())
        self.table.move_to(key)
        self.table.focus()

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        """Inspect the model under the cursor."""
        event.stop()
        self.inspector.show(self.selected)
        self._draw_counts()
        self.update_keys()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Go into the inspector."""
        event.stop()
        if self.has_class("-narrow"):
            self.app.push_screen(InspectorScreen(self.context, event.key, self.inspector.tab, self.inspector))
        else:
            self._show_disk_use(False)
            self.inspector.body.focus()

    def on_model_table_marked(self) -> None:
        """Count the marks."""
        self._draw_counts()
        self.update_keys()

    # -- actions -----------------------------------------------------------------------------------

    def why_not(self, action: str) -> str | None:
        """Return why an action is not possible now."""
        empty = self.why_nothing()
        if action in {"filter", "disk_use", "prune", "sort_next", "sort_turn"}:
            return empty
        if action in {"verify", "delete", "copy_name", "copy_path", "clone"} and not self.chosen:
            return empty or "No model is selected."
        if action == "push":
            return pull_actions.why_no_push(self.context)
        if action == "pull" and not self._invites:
            unknown = empty or (None if self.chosen else "No model is selected.")
            return unknown or pull_actions.why_no_pull(self.context, self.chosen)
        if action == "chat":
            return empty or models.entry_disabled_reason(self.selected)
        if action == "clone":
            if len(self.chosen) > 1:
                return "Only one model at a time can be cloned; escape takes the marks away."
            if self.chosen[0].model.health is not Health.HEALTHY:
                return f"{self.chosen[0].short} is not sound and cannot be cloned; Health says why."
        return None

    @property
    def _invites(self) -> bool:
        """Whether the message of an empty cache stands there, with models to begin with."""
        library = self.context.library
        return not library.entries and library.phase is ScanPhase.READY

    def action_filter(self) -> None:
        """Go into the filter."""
        self.filter_bar.open()

    def on_filter_bar_changed(self) -> None:
        """Draw what matches."""
        self.draw_library(Changed())

    def on_filter_input_left(self, event: FilterInput.Left) -> None:
        """Go back to the table."""
        if event.clear:
            self.filter_bar.clear()
        else:
            self.filter_bar.close()
        self.table.focus()

    def action_sort_next(self) -> None:
        """Sort by the next column that is shown."""
        shown = self.columns.shown
        place = COLUMN_IDS.index(self._sort)
        around = (*COLUMN_IDS[place + 1 :], *COLUMN_IDS[: place + 1])
        self._sort_by(next((column for column in around if column in shown), self._sort))

    def action_sort_turn(self) -> None:
        """Reverse the order."""
        self._sort_by(self._sort)

    def on_table_header_clicked(self, event: TableHeader.Clicked) -> None:
        """Sort by the column that was clicked."""
        self._sort_by(event.column)

    def _sort_by(self, column_id: str) -> None:
        column = next(column for column in COLUMNS if column.id == column_id)
        self._reverse = not self._reverse if column_id == self._sort else column.largest_first
        self._sort = column_id
        self.columns.show_sort(column_id, reverse=self._reverse)
        self.draw_library(Changed())

    def action_show_all(self) -> None:
        """Show only what is made for MLX, or everything."""
        self._show_all = not self._show_all
        self.draw_library(Changed())
        text = "All models are shown." if self._show_all else "Only models made for MLX are shown."
        self.notify(text, markup=False, timeout=3)

    def action_disk_use(self) -> None:
        """Show who takes the disk."""
        if self.has_class("-narrow"):
            self.app.push_screen(DiskUseScreen(self.context))
        else:
            self._show_disk_use(not self.disk_use.display)

    def _show_disk_use(self, shown: bool) -> None:
        self.disk_use.display = shown
        self.inspector.display = not shown
        if shown:
            self.call_after_refresh(self.disk_use.show, list(self.context.library.entries.values()))

    def action_pull(self) -> None:
        """Pull what is chosen again; in an empty cache, choose a first model."""
        if self._invites:
            pull_actions.find_models(self, self.context)
        else:
            pull_actions.pull_again(self, self.context, self.chosen)

    def action_push(self) -> None:
        """Push a folder."""
        pull_actions.push_folder(self, self.context)

    def action_verify(self) -> None:
        """Compare checksums."""
        model_actions.verify_models(self, self.context, self.chosen)

    def action_chat(self) -> None:
        """Begin a chat with the model under the cursor."""
        if (entry := self.selected) is not None:
            model_actions.chat_with(self, entry)

    def action_clone(self) -> None:
        """Clone the model."""
        if chosen := self.chosen:
            model_actions.ask(self, model_actions.clone_model(self, self.context, chosen[0]))

    def action_delete(self) -> None:
        """Delete what is chosen."""
        model_actions.ask(self, model_actions.delete_models(self, self.context, self.chosen))

    def action_prune(self) -> None:
        """Prune the cache."""
        model_actions.ask(self, model_actions.prune_cache(self, self.context))

    @work(group="rescan", exclusive=True, exit_on_error=False)
    async def action_rescan(self) -> None:
        """Read the cache again."""
        await model_actions.rescan(self, self.context)

    def action_copy_name(self) -> None:
        """Copy the name of what is chosen."""
        if chosen := self.chosen:
            model_actions.copy_name(self, chosen)

    def action_copy_path(self) -> None:
        """Copy the path of what is chosen."""
        if chosen := self.chosen:
            model_actions.copy_path(self, chosen)

    def action_leave(self) -> None:
        """Leave what is transient, one thing at a time; a running task is stopped last."""
        if not self.table.has_focus:
            self.table.focus()
        elif self.filter_bar.input.value:
            self.filter_bar.clear()
        elif self.table.marks:
            self.table.clear_marks()
        elif self.disk_use.display:
            self._show_disk_use(False)
        else:
            self.stop_task()
