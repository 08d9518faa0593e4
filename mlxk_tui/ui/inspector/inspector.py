"""The inspector: one model in tabs, which load when they are opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, cast

from rich.console import RenderableType
from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.visual import VisualType
from textual.widgets import Static
from textual.worker import Worker, WorkerState

from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.library import Entry
from mlxk_tui.ui.inspector import description
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.scrolling import scroll_bindings
from mlxk_tui.ui.widgets.tab_strip import Tab, TabStrip
from mlxk_tui.ui.widgets.text import cut

TABS = (
    Tab("overview", "Overview"),
    Tab("health", "Health"),
    Tab("files", "Files"),
    Tab("config", "Config"),
    Tab("card", "Card"),
)
_SETTLE_SECONDS = 0.06
_MAX_CARD = 60_000
"""Characters of a model card that are shown."""


class InspectorBody(VerticalScroll):
    """The scrolling content of the open tab."""

    BINDING_GROUP_TITLE = "Inspector"
    BINDINGS: ClassVar[list[BindingType]] = [
        *scroll_bindings("inspector"),
        Binding("left,h", "tab(-1)", "Tab left", show=False, id="inspector.previous_tab"),
        Binding("right,l", "tab(1)", "Tab right", show=False, id="inspector.next_tab"),
    ]

    def action_tab(self, by: int) -> None:
        """Open the tab `by` places from the open one."""
        inspector = self.parent
        if isinstance(inspector, Inspector):
            inspector.step(by)


class Inspector(Vertical):
    """Shows one model."""

    tabs = getters.query_one("#inspector-tabs", TabStrip)
    body = getters.query_one("#inspector-body", InspectorBody)
    text = getters.query_one("#inspector-text", Static)

    def __init__(
        self,
        cache: Cache,
        *,
        machine_bytes: Callable[[], int],
        without_gpu: Callable[[], bool],
        now: Callable[[], datetime],
        tab: str = "overview",
        id: str | None = None,  # noqa: A002 - Textual's own name
    ) -> None:
        super().__init__(id=id)
        self._cache = cache
        self._machine_bytes = machine_bytes
        self._without_gpu = without_gpu
        self._now = now
        self._first_tab = tab
        self._entry: Entry | None = None
        self._loaded: dict[str, object] = {}

    def compose(self) -> ComposeResult:
        yield TabStrip(TABS, self._first_tab, id="inspector-tabs")
        with InspectorBody(id="inspector-body"):
            yield Static(id="inspector-text", markup=False)

    def on_mount(self) -> None:
        """Draw again after a change of the theme: the card has its colors."""
        self.app.theme_changed_signal.subscribe(self, lambda _: self._draw())

    def show(self, entry: Entry | None) -> None:
        """Show a model; the tab stays open, and its scroll position if the model is the same."""
        before = self._entry
        if entry == before and entry is not None:
            return
        same = entry is not None and before is not None and entry.key == before.key
        self._entry = entry
        self._loaded = {}
        with self.app.batch_update():  # title and text in one frame
            if not same:
                self.body.scroll_home(animate=False)
            self._title()
            self._draw()

    @property
    def tab(self) -> str:
        """Id of the open tab."""
        return self.tabs.active

    def step(self, by: int) -> None:
        """Open the tab `by` places from the open one."""
        self.open(self.tabs.neighbor(by))

    def open(self, tab: str) -> None:
        if tab != self.tabs.active:
            self.tabs.active = tab
            self.body.scroll_home(animate=False)
            self._draw()

    def on_tab_strip_activated(self, event: TabStrip.Activated) -> None:
        event.stop()
        self.open(event.id)

    def on_resize(self) -> None:
        self._title()
        self._draw()

    def _title(self) -> None:
        width = max(8, self.size.width - 4)
        name = cut(self._entry.short, width) if self._entry else "Inspector"
        self.border_title = Content(name)

    def _draw(self) -> None:
        width = self.body.scrollable_content_region.width
        entry = self._entry
        if width <= 0:
            return
        if entry is None:
            self.text.update(description.placeholder("No model selected."))
            return
        tab = self.tabs.active
        if tab == "overview":
            self.text.update(
                description.overview(
                    entry,
                    self._machine_bytes(),
                    self._now(),
                    width,
                    in_turn=self._loaded.get(tab),
                    without_gpu=self._without_gpu(),
                )
            )
            if tab not in self._loaded:
                self._start_loading(entry, tab)
        elif tab == "health":
            self.text.update(description.health(entry, self._now(), width))
        elif tab in self._loaded:
            self.text.update(self._render_tab(tab, self._loaded[tab], width))
        else:
            self.text.update(description.placeholder("Loading …"))
            self._start_loading(entry, tab)

    def _start_loading(self, entry: Entry, tab: str) -> None:
        # Textual's type of a worker's function (8.2.8) does not accept coroutine functions that return None.
        # A coroutine object would never be awaited if the worker is cancelled before its first step.
        job = cast("Callable[[], None]", partial(self._load, entry, tab))
        self.run_worker(job, group="inspector", exclusive=True, exit_on_error=False)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """Pass failed workers on to the app, which reports them."""
        if event.state is WorkerState.ERROR:
            self.app.post_message(event)

    async def _load(self, entry: Entry, tab: str) -> None:
        await asyncio.sleep(_SETTLE_SECONDS)  # while a key is held the cursor passes many models
        from mlxk_tui.ops.catalog import show

        loaders: dict[str, Callable[..., Any]] = {
            "overview": show.read_batching_reason,
            "files": show.read_files,
            "config": show.read_config,
            "card": show.read_card,
        }
        try:
            value = await loaders[tab](self._cache, entry.report.ref)
        except OpError as error:
            value = error
        if self._entry is entry:
            self._loaded[tab] = value
            if self.tabs.active == tab and not (tab == "overview" and value is None):
                self._draw()

    def _render_tab(self, tab: str, value: object, width: int) -> VisualType:
        if isinstance(value, OpError):
            return Content.styled(error_text(value), "$bad")
        if tab == "files":
            from mlxk_tui.ops.contract.results import ModelFile

            listed = (
                [file for file in value if isinstance(file, ModelFile)] if isinstance(value, list) else []
            )
            return description.files(listed, width)
        if tab == "config":
            return description.config(value if isinstance(value, dict) else None, width)
        return card(value if isinstance(value, str) else None, self.app.theme_variables)


def card(text: str | None, colors: Mapping[str, str]) -> RenderableType | Content:
    """Return a model card as static Markdown: links are text, and nothing is Textual markup."""
    if not text or not text.strip():
        return Content.styled("No model card.", "$muted")
    from mlxk_tui.ui.inspector.card import Card  # 40 ms for this tab only

    safe = printable(text[:_MAX_CARD], keep_newlines=True)
    if len(text) > _MAX_CARD:
        safe += "\n\n---\nThe rest of the card is not shown."
    return Card(safe, colors)
