"""The hub search: find a model, preview its pull, queue it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from textual import events, getters, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from mlxk_tui.ops.cache.names import is_valid_repo_name, parse_spec
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import plural
from mlxk_tui.transfers.changes import Change
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.transfers.starters import STARTERS
from mlxk_tui.ui.inspector import model_actions, pull_actions
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyFooter
from mlxk_tui.ui.transfers.search_list import SearchHit, SearchList, titles
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView
from mlxk_tui.ui.widgets.text import line

_SETTLE_SECONDS = 0.35
_LIMIT = 50


class HubSearchInput(Input):
    """The input of the hub search; enter and down move to the results."""

    BINDING_GROUP_TITLE = "Hub search: input"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "to_list", "To the results", key_display="⏎", id="search.list"),
    ]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Treat `/` and `?` as typed text: Textual (8.2.8) would show them as key bindings in the footer."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)

    def action_to_list(self) -> None:
        """Move to the results; search at once if the pause after typing is not over."""
        screen = self.screen
        if isinstance(screen, SearchScreen):
            screen.leave_input()


class SearchScreen(ModalScreen[None], OverlayScreen[None]):
    """The search over a pane; it stays open after a model was queued.

    Args:
        context: the app's services.
    """

    BINDING_GROUP_TITLE = "Hub search"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close", key_display="esc", id="search.close"),
        Binding("slash", "type", "Search", key_display="/", id="search.type", tooltip="Edit the search"),
        Binding("r", "retry", "Search again", show=False, id="search.again"),
    ]
    AUTO_FOCUS = "#search-input"

    input = getters.query_one("#search-input", HubSearchInput)
    count = getters.query_one("#search-answer", Static)
    columns = getters.query_one("#search-columns", Static)
    results = getters.query_one("#search-results", SearchList)
    message = getters.query_one("#search-message", StateView)
    frame = getters.query_one("#search-frame", Vertical)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self._query = ""
        self._found: list[SearchHit] = []
        self._error: OpError | None = None
        self._busy = False
        self._focus_results_of = ""
        """The query whose results get the focus when they arrive."""

    def compose(self) -> ComposeResult:
        with Vertical(id="search-frame") as frame:
            frame.border_title = "Find a model on the hub"
            with Horizontal(id="search-line"):
                yield Static("/", id="search-prompt", markup=False)
                yield HubSearchInput(
                    id="search-input", compact=True, placeholder="model name, or organization/model"
                )
                yield Static(id="search-answer", markup=False)
            yield Static(id="search-columns", markup=False)
            yield SearchList(now=self.context.library.now, id="search-results")
            yield StateView(id="search-message")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show small models until something is typed."""
        self.subscribe(self.context.transfers.changed, self._transfers_changed)
        self._draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_titles)

    # -- searching ---------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search after a pause in the typing."""
        event.stop()
        self._search(event.value, settle=True)

    @work(group="search", exclusive=True, exit_on_error=False)
    async def _search(self, text: str, *, settle: bool) -> None:
        words = " ".join(text.split())
        if settle:
            await asyncio.sleep(_SETTLE_SECONDS)
        self._query, self._error = words, None
        if not words:
            self._busy, self._found = False, []
            self._draw()
            return
        self._busy = True
        self._draw()
        try:
            found = await self._search_hub(words)
        except OpError as error:
            self._error, found = error, []
        self._busy, self._found = False, found
        if self.is_attached:
            self._draw()
            if self._focus_results_of == words and self._shown():
                self.results.focus()

    async def _search_hub(self, words: str) -> list[SearchHit]:
        from mlxk_tui.ops.hub.search import search

        name = words.partition("@")[0]
        found = await search(self.context.hub(), name, limit=_LIMIT, cache=self.context.library.cache)
        return [
            SearchHit(
                result.name,
                result.size_bytes,
                result.downloads,
                result.last_modified,
                gated=result.gated,
                cached=result.cached,
                mlx=result.mlx,
            )
            for result in found.results
        ]

    def _exact_hit(self) -> SearchHit | None:
        """Return the model whose full name was typed, if the results do not include it."""
        words = self._query
        try:
            spec = parse_spec(words)
        except OpError:
            return None
        listed = any(found.name.casefold() == words.casefold() for found in self._found)
        if "/" not in spec.name or not is_valid_repo_name(spec.name) or listed:
            return None
        return SearchHit(words, note="exact name")

    # -- drawing -----------------------------------------------------------------------------------

    def _transfers_changed(self, change: Change) -> None:
        if change.structure:
            self._draw()

    def _shown(self) -> Sequence[SearchHit]:
        if not self._query:
            return [
                SearchHit(
                    starter.name, starter.size_bytes, note=starter.note, cached=self._is_cached(starter.name)
                )
                for starter in STARTERS
            ]
        exact = self._exact_hit()
        return [*([exact] if exact else []), *self._found]

    def _is_cached(self, name: str) -> bool:
        return any(entry.model.name == name for entry in self.context.library.entries.values())

    def _draw(self) -> None:
        shown = self._shown() if not self._busy else []
        queued = {
            transfer.job.name.casefold()
            for transfer in self.context.transfers.unfinished
            if not transfer.is_push
        }
        self.results.show(shown, queued)
        self.frame.set_class(not shown, "-message")
        self.frame.border_subtitle = Content("")
        if self._busy:
            self.count.update(Content.styled("searching …", "$muted"))
            self.message.show("·  ·  ·", "Searching the hub", [])
        elif self._error is not None:
            self.count.update("")
            self.message.show(
                "✗",
                "Search failed",
                [error_text(self._error)],
                style="$bad",
                keys=[("⏎", "retry"), ("esc", "close")],
            )
        elif not self._query:
            self.count.update("")
        elif not shown:
            self.count.update(Content.styled("no results", "$muted"))
            self.message.show(
                "∅",
                "No matches",
                ["Try fewer words, or enter the full name as organization/model."],
            )
        else:
            self.count.update(Content.styled(plural(len(self._found), "model"), "$muted"))
        self.call_after_refresh(self._draw_titles)

    def _draw_titles(self) -> None:
        if not self.is_attached:
            return
        if not self._query and not self._busy:
            text = line([(" Small models to start with", "$muted")])
        else:
            text = line(titles(self.results.scrollable_content_region.width))
        self.columns.update(text)

    # -- keys --------------------------------------------------------------------------------------

    def leave_input(self) -> None:
        """Focus the results; search first if they are not those of the input."""
        words = " ".join(self.input.value.split())
        if words != self._query or (self._error is not None and not self._busy):
            self._search(words, settle=False)
        self._focus_results_of = words
        if self.results.keys and words == self._query and not self._busy:
            self.results.focus()

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        event.stop()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        """Show the preview of a pull."""
        event.stop()
        model_actions.run_dialog(self, self._pull(event.key))

    async def _pull(self, name: str) -> None:
        from mlxk_tui.ui.transfers.preflight import PreflightDialog

        if self.app.screen is not self:
            return
        job: Pull | None = await self.app.push_screen_wait(PreflightDialog(self.context, name))
        if job is not None:
            pull_actions.enqueue(self, self.context, [job])

    def action_type(self) -> None:
        self.input.focus()

    def action_retry(self) -> None:
        self._search(self.input.value, settle=False)

    def action_leave(self) -> None:
        self.dismiss()

    def on_click(self, event: events.Click) -> None:
        """Close on a click outside the frame."""
        if event.widget is self:
            self.dismiss()
