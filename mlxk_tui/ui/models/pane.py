"""The Models pane: a table of all repos in the cache, with an inspector beside it."""

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
from mlxk_tui.ops.core.text import format_size, plural
from mlxk_tui.services.conversation import models
from mlxk_tui.services.library import Changed, Entry, ScanPhase
from mlxk_tui.transfers.starters import STARTERS
from mlxk_tui.ui.inspector import model_actions, model_keys, pull_actions
from mlxk_tui.ui.inspector.disk_usage import DiskUsage
from mlxk_tui.ui.inspector.inspector import Inspector
from mlxk_tui.ui.inspector.screens import WIDE, DiskUsageScreen, InspectorScreen
from mlxk_tui.ui.models.filter_bar import FilterBar, FilterInput
from mlxk_tui.ui.models.table import COLUMN_IDS, COLUMNS, ModelTable, TableHeader, sorted_entries
from mlxk_tui.ui.shell import empty_states
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView

_MESSAGE_DELAY_SECONDS = 0.4
"""How long an empty table is shown before a message replaces it: a fast scan shows no message."""


class ModelsPane(Pane):
    """The table and the inspector."""

    pane_id = "models"
    AUTO_FOCUS = "#table"
    BINDING_GROUP_TITLE = "Models"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash",
            "filter",
            "Filter",
            key_display="/",
            id="models.filter",
            tooltip=f"Filter by name, {', '.join(FIELDS)}",
        ),
        model_keys.CHAT,
        model_keys.PULL,
        model_keys.VERIFY,
        model_keys.CLONE,
        model_keys.DELETE,
        model_keys.COPY_NAME,
        model_keys.COPY_PATH,
        Binding("s", "sort_next", "Sort", show=False, id="models.sort", tooltip="Sort by the next column"),
        Binding("S", "sort_reverse", "Reverse the sort order", show=False, id="models.sort_reverse"),
        Binding("u", "disk_usage", "Disk usage", show=False, id="models.disk_use", tooltip="Show disk usage"),
        replace(model_keys.PRUNE, show=False),  # the footer has no room for it at 80 columns
        model_keys.RESCAN,
        model_keys.CHECK_UPDATES,
        model_keys.PUSH,
        Binding(
            "m",
            "show_all",
            "MLX only / all",
            show=False,
            id="models.show_all",
            tooltip="Show MLX models only, or all models",
        ),
        Binding("escape", "leave", "Back", show=False, id="models.leave"),
    ]

    table = getters.query_one("#table", ModelTable)
    columns = getters.query_one("#table-header", TableHeader)
    inspector = getters.query_one("#inspector", Inspector)
    disk_usage = getters.query_one("#disk-use", DiskUsage)
    filter_bar = getters.query_one(FilterBar)
    panel = getters.query_one("#models-panel", Vertical)
    message = getters.query_one("#models-message", StateView)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sort: str = context.settings.sort
        self._reverse = context.settings.sort_reverse
        self._show_all = context.settings.show_all
        self._shown: list[Entry] = []
        self._delay_over = False

    def body(self) -> Iterable[Widget]:
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
        yield Horizontal(panel, inspector, DiskUsage(id="disk-use"), id="models-body")

    def on_mount(self) -> None:
        self.columns.show_sort(self._sort, reverse=self._reverse)
        self.disk_usage.display = False
        self.set_timer(_MESSAGE_DELAY_SECONDS, self._end_message_delay)

    # -- drawing -----------------------------------------------------------------------------------

    def drop_removed(self, change: Changed) -> None:
        self.table.unmark(change.removed)

    def draw_library(self, change: Changed) -> None:
        entries = [
            entry
            for entry in self.context.library.entries.values()
            if (self._show_all or entry.model.framework is Framework.MLX)
            and self.filter_bar.filter.matches(entry.model, has_update=entry.update is not None)
        ]
        self._shown = sorted_entries(entries, self._sort, reverse=self._reverse)
        self.table.show(self._shown)
        self._draw_message()
        self._draw_counts()
        if self.table.cursor_key in change.updated:
            self.inspector.show(self.selected)
        if self.disk_usage.display:
            self.disk_usage.show(list(self.context.library.entries.values()))
        self.update_keys()

    def on_resize(self) -> None:
        """Focus the table if the focused widget is hidden at this width."""
        focused = self.focused
        beside = {self.inspector, self.disk_usage}
        if self.size.width < WIDE and (focused is None or beside.intersection(focused.ancestors_with_self)):
            self.table.focus()

    def _end_message_delay(self) -> None:
        self._delay_over = True
        self._draw_message()

    def _draw_message(self) -> None:
        library = self.context.library
        filtered = bool(self.filter_bar.filter.text) or not self._show_all
        view = self.message
        ready = library.phase is not ScanPhase.LOADING or self._delay_over
        self.panel.set_class(not self._shown and ready, "-message")
        self.query_one("#models-body").set_class(not library.entries and ready, "-empty")
        if self._shown or not ready:
            return
        if empty_states.show_scan_state(view, library, loading="Scanning the cache"):
            return
        if library.entries and filtered:
            keys = [("esc", "clear the filter")] if self.filter_bar.filter.text else []
            keys += [] if self._show_all else [("m", "show all frameworks")]
            view.show(
                "∅", "No matches", [f"{plural(len(library.entries), 'model')} in the cache."], keys=keys
            )
        else:
            state = "is empty" if library.cache.root.exists() else "does not exist yet"
            view.show(
                "◇",
                "No models yet",
                [
                    f"{empty_states.cache_path(library)} {state}.",
                    "",
                    "Start with a small one:",
                    *(f"{starter.name}  {format_size(starter.size_bytes)}" for starter in STARTERS),
                ],
                keys=[("p", "pull a model"), ("r", "rescan")],
            )

    def _draw_counts(self) -> None:
        marks = self._marked
        hidden = len(self.table.marks) - len(marks)
        total = len(self.context.library.entries)
        matches = f"{len(self._shown):,} of {total:,}"
        self.filter_bar.show_count(matches)
        if marks:
            text = f"◆ {len(marks):,} marked · {format_size(sum(entry.model.disk_bytes for entry in marks))}"
            text += f" · {hidden:,} more hidden by the filter" if hidden else ""
        elif hidden:
            text = f"◆ {hidden:,} marked, hidden by the filter"
        elif len(self._shown) < total:
            text = f"{matches} · {format_size(sum(entry.model.disk_bytes for entry in self._shown))}"
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
    def targets(self) -> list[Entry]:
        """The models that actions apply to: the marked ones that are shown, else the one under the cursor."""
        return self._marked or ([self.selected] if self.selected else [])

    def select(self, key: str) -> None:
        """Move the cursor to a model; the filter is cleared if it hides the model."""
        if key not in self.table.keys:
            self.filter_bar.clear()
            self._show_all = True
            self.filter_bar.filter = type(self.filter_bar.filter)()
            self.draw_library(Changed())
        self.table.move_to(key)
        self.table.focus()

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        event.stop()
        self.inspector.show(self.selected)
        self._draw_counts()
        self.update_keys()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        event.stop()
        if self.has_class("-narrow"):
            self.app.push_screen(InspectorScreen(self.context, event.key, self.inspector.tab, self.inspector))
        else:
            self._show_disk_usage(False)
            self.inspector.body.focus()

    def on_model_table_marks_changed(self) -> None:
        self._draw_counts()
        self.update_keys()

    # -- actions -----------------------------------------------------------------------------------

    def disabled_reason(self, action: str) -> str | None:
        empty = self.no_models_reason()
        if action in {"filter", "disk_usage", "prune", "sort_next", "sort_reverse", "check_updates"}:
            return empty
        if action in {"verify", "delete", "copy_name", "copy_path", "clone"} and not self.targets:
            return empty or "No model selected."
        if action == "push":
            return pull_actions.push_disabled_reason(self.context)
        if action == "pull" and not self._shows_starters:
            reason = empty or (None if self.targets else "No model selected.")
            return reason or pull_actions.pull_disabled_reason(self.context, self.targets)
        if action == "chat":
            return empty or models.entry_disabled_reason(self.selected)
        if action == "clone":
            if len(self.targets) > 1:
                return "Clone one model at a time. Press esc to clear the marks."
            if self.targets[0].model.health is not Health.HEALTHY:
                return f"{self.targets[0].short} is broken and can't be cloned. See Health for details."
        return None

    @property
    def _shows_starters(self) -> bool:
        """Whether the message of an empty cache is shown, with small models to pull."""
        library = self.context.library
        return not library.entries and library.phase is ScanPhase.READY

    def action_filter(self) -> None:
        self.filter_bar.open()

    def on_filter_bar_changed(self) -> None:
        self.draw_library(Changed())

    def on_filter_input_closed(self, event: FilterInput.Closed) -> None:
        if event.clear:
            self.filter_bar.clear()
        else:
            self.filter_bar.close()
        self.table.focus()

    def action_sort_next(self) -> None:
        """Sort by the next visible column."""
        shown = self.columns.shown
        index = COLUMN_IDS.index(self._sort)
        rotated = (*COLUMN_IDS[index + 1 :], *COLUMN_IDS[: index + 1])
        self._sort_by(next((column for column in rotated if column in shown), self._sort))

    def action_sort_reverse(self) -> None:
        self._sort_by(self._sort)

    def on_table_header_clicked(self, event: TableHeader.Clicked) -> None:
        self._sort_by(event.column)

    def _sort_by(self, column_id: str) -> None:
        column = next(column for column in COLUMNS if column.id == column_id)
        self._reverse = not self._reverse if column_id == self._sort else column.descending_first
        self._sort = column_id
        self.columns.show_sort(column_id, reverse=self._reverse)
        self.draw_library(Changed())

    def action_show_all(self) -> None:
        self._show_all = not self._show_all
        self.draw_library(Changed())
        text = "Showing all models." if self._show_all else "Showing MLX models only."
        self.notify(text, markup=False, timeout=3)

    def action_disk_usage(self) -> None:
        if self.has_class("-narrow"):
            self.app.push_screen(DiskUsageScreen(self.context))
        else:
            self._show_disk_usage(not self.disk_usage.display)

    def _show_disk_usage(self, shown: bool) -> None:
        self.disk_usage.display = shown
        self.inspector.display = not shown
        if shown:
            self.call_after_refresh(self.disk_usage.show, list(self.context.library.entries.values()))

    def action_pull(self) -> None:
        """Pull the models again; in an empty cache, open the hub search."""
        if self._shows_starters:
            pull_actions.open_hub_search(self, self.context)
        else:
            pull_actions.pull_entries(self, self.context, self.targets)

    def action_check_updates(self) -> None:
        pull_actions.check_updates(self, self.context)

    def action_push(self) -> None:
        pull_actions.open_push_form(self, self.context)

    def action_verify(self) -> None:
        model_actions.verify_models(self, self.context, self.targets)

    def action_chat(self) -> None:
        if (entry := self.selected) is not None:
            model_actions.start_chat(self, entry)

    def action_clone(self) -> None:
        if targets := self.targets:
            model_actions.run_dialog(self, model_actions.clone_model(self, self.context, targets[0]))

    def action_delete(self) -> None:
        model_actions.run_dialog(self, model_actions.delete_models(self, self.context, self.targets))

    def action_prune(self) -> None:
        model_actions.run_dialog(self, model_actions.prune_cache(self, self.context))

    @work(group="rescan", exclusive=True, exit_on_error=False)
    async def action_rescan(self) -> None:
        await model_actions.rescan(self, self.context)

    def action_copy_name(self) -> None:
        if targets := self.targets:
            model_actions.copy_name(self, targets)

    def action_copy_path(self) -> None:
        if targets := self.targets:
            model_actions.copy_path(self, targets)

    def action_leave(self) -> None:
        """Undo one step: focus, filter, marks, disk usage; at last, stop the latest task."""
        if not self.table.has_focus:
            self.table.focus()
        elif self.filter_bar.input.value:
            self.filter_bar.clear()
        elif self.table.marks:
            self.table.clear_marks()
        elif self.disk_usage.display:
            self._show_disk_usage(False)
        else:
            self.stop_task()
