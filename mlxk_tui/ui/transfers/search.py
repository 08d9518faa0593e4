"""The search of the hub: type, pick a model, look at what a pull would bring, queue it."""

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

from mlxk_tui.ops.cache.names import is_clean, parse_spec
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import plural
from mlxk_tui.transfers.changes import Change
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.transfers.starters import STARTERS
from mlxk_tui.ui.inspector import model_actions, pull_actions
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.footer import KeyLine
from mlxk_tui.ui.transfers.search_list import SearchHit, SearchList, titles
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.state_view import StateView
from mlxk_tui.ui.widgets.text import line
from mlxk_tui.ui.widgets.transient import Transient

_SETTLE_SECONDS = 0.35
_LIMIT = 50


class HubSearchInput(Input):
    """Where the words are typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "to_list", "To the list", key_display="⏎", id="search.list"),
    ]

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Keep the keys that are typed out of the footer; Textual (8.2.8) does not know these as letters."""
        return key in {"slash", "question_mark"} or super().check_consume_key(key, character)

    def action_to_list(self) -> None:
        """Go to what was found; what was typed and not yet searched for is searched for now."""
        screen = self.screen
        if isinstance(screen, SearchScreen):
            screen.leave_input()


class SearchScreen(ModalScreen[None], Transient[None]):
    """A box over the panes; what is picked is queued and the box stays, for more.

    Args:
        context: what every pane is given.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Close", key_display="esc", id="search.close"),
        Binding("slash", "type", "Search", key_display="/", id="search.type", tooltip="Type other words"),
        Binding("r", "again", "Ask again", show=False, id="search.again"),
    ]
    AUTO_FOCUS = "#search-input"

    input = getters.query_one("#search-input", HubSearchInput)
    answer = getters.query_one("#search-answer", Static)
    columns = getters.query_one("#search-columns", Static)
    results = getters.query_one("#search-results", SearchList)
    message = getters.query_one("#search-message", StateView)
    frame = getters.query_one("#search-frame", Vertical)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._given = context
        self._asked = ""
        self._found: list[SearchHit] = []
        self._error: OpError | None = None
        self._busy = False
        self._to_list = ""
        """The words whose answer gets the focus when it comes."""

    def compose(self) -> ComposeResult:
        """Lay out the box."""
        with Vertical(id="search-frame") as frame:
            frame.border_title = "Find a model on the hub"
            with Horizontal(id="search-line"):
                yield Static("/", id="search-prompt", markup=False)
                yield HubSearchInput(
                    id="search-input", compact=True, placeholder="words of a name, or organisation/model"
                )
                yield Static(id="search-answer", markup=False)
            yield Static(id="search-columns", markup=False)
            yield SearchList(now=self._given.library.now, id="search-results")
            yield StateView(id="search-message")
        yield KeyLine()

    def on_mount(self) -> None:
        """Offer small models until something is typed."""
        self.subscribe(self._given.transfers.changed, self._transfers_changed)
        self._draw()

    def on_resize(self) -> None:
        """Draw the titles for the new width."""
        self.call_after_refresh(self._draw_titles)

    # -- searching ---------------------------------------------------------------------------------

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search once the typing rests."""
        event.stop()
        self._search(event.value, settle=True)

    @work(group="search", exclusive=True, exit_on_error=False)
    async def _search(self, text: str, *, settle: bool) -> None:
        words = " ".join(text.split())
        if settle:
            await asyncio.sleep(_SETTLE_SECONDS)
        self._asked, self._error = words, None
        if not words:
            self._busy, self._found = False, []
            self._draw()
            return
        self._busy = True
        self._draw()
        try:
            found = await self._ask(words)
        except OpError as error:
            self._error, found = error, []
        self._busy, self._found = False, found
        if self.is_attached:
            self._draw()
            if self._to_list == words and self._shown():
                self.results.focus()

    async def _ask(self, words: str) -> list[SearchHit]:
        from mlxk_tui.ops.hub.search import search

        name = words.partition("@")[0]
        answer = await search(self._given.hub(), name, limit=_LIMIT, cache=self._given.library.cache)
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
            for result in answer.results
        ]

    def _typed(self) -> SearchHit | None:
        """Return the model that was typed by its full name, where the search does not list it."""
        words = self._asked
        try:
            spec = parse_spec(words)
        except OpError:
            return None
        listed = any(found.name.casefold() == words.casefold() for found in self._found)
        if "/" not in spec.name or not is_clean(spec.name) or listed:
            return None
        return SearchHit(words, note="exactly as typed")

    # -- drawing -----------------------------------------------------------------------------------

    def _transfers_changed(self, change: Change) -> None:
        if change.structure:
            self._draw()

    def _shown(self) -> Sequence[SearchHit]:
        if not self._asked:
            return [
                SearchHit(
                    starter.name, starter.size_bytes, note=starter.note, cached=self._is_cached(starter.name)
                )
                for starter in STARTERS
            ]
        typed = self._typed()
        return [*([typed] if typed else []), *self._found]

    def _is_cached(self, name: str) -> bool:
        return any(entry.model.name == name for entry in self._given.library.entries.values())

    def _draw(self) -> None:
        shown = self._shown() if not self._busy else []
        queued = {
            transfer.job.name.casefold()
            for transfer in self._given.transfers.unfinished
            if not transfer.is_push
        }
        self.results.show(shown, queued)
        self.frame.set_class(not shown, "-message")
        self.frame.border_subtitle = Content("")
        if self._busy:
            self.answer.update(Content.styled("searching …", "$muted"))
            self.message.show("·  ·  ·", "Asking the hub", [])
        elif self._error is not None:
            self.answer.update("")
            self.message.show(
                "✗",
                "The hub did not answer",
                [error_text(self._error)],
                style="$bad",
                keys=[("⏎", "ask again"), ("esc", "close")],
            )
        elif not self._asked:
            self.answer.update("")
        elif not shown:
            self.answer.update(Content.styled("none", "$muted"))
            self.message.show(
                "∅",
                "No model matches",
                ["Try fewer words. A full name such as organisation/model is taken as it stands."],
            )
        else:
            self.answer.update(Content.styled(plural(len(self._found), "model"), "$muted"))
        self.call_after_refresh(self._draw_titles)

    def _draw_titles(self) -> None:
        if not self.is_attached:
            return
        if not self._asked and not self._busy:
            text = line([(" Small models to begin with", "$muted")])
        else:
            text = line(titles(self.results.scrollable_content_region.width))
        self.columns.update(text)

    # -- keys --------------------------------------------------------------------------------------

    def leave_input(self) -> None:
        """Go to the list, or ask the hub at once where it has not been asked for what stands there."""
        words = " ".join(self.input.value.split())
        if words != self._asked or (self._error is not None and not self._busy):
            self._search(words, settle=False)
        self._to_list = words
        if self.results.keys and words == self._asked and not self._busy:
            self.results.focus()

    def on_row_list_highlighted(self, event: RowList.Highlighted) -> None:
        """Nothing hangs on the cursor."""
        event.stop()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Show what a pull would bring."""
        event.stop()
        model_actions.ask(self, self._pull(event.key))

    async def _pull(self, name: str) -> None:
        from mlxk_tui.ui.transfers.preflight import Preflight

        if self.app.screen is not self:
            return
        job: Pull | None = await self.app.push_screen_wait(Preflight(self._given, name))
        if job is not None:
            pull_actions.queue(self, self._given, [job])

    def action_type(self) -> None:
        """Go back to the input."""
        self.input.focus()

    def action_again(self) -> None:
        """Ask the hub once more."""
        self._search(self.input.value, settle=False)

    def action_leave(self) -> None:
        """Leave."""
        self.dismiss()

    def on_click(self, event: events.Click) -> None:
        """Leave when the click is outside the frame."""
        if event.widget is self:
            self.dismiss()
