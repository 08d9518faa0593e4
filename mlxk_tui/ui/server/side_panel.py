"""The tabs below the requests: the selected request, the API keys, and snippets for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual import getters
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import Static

from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.request_log import RequestEntry
from mlxk_tui.ui.server import request_text
from mlxk_tui.ui.server.snippets import Snippet
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.scrolling import scroll_bindings
from mlxk_tui.ui.widgets.tab_strip import Tab, TabStrip
from mlxk_tui.ui.widgets.text import Part, line, lines, pad, wrap

REQUEST, KEYS, FIRST_SNIPPET = "request", "keys", "curl"
_LABEL = 15
_TWO_COLUMNS = 84
_MAX_WIDTH = 110
_MAX_TEXT = 4_000
"""Characters of a prompt or an answer that are shown."""
_DOTS = "•" * 12


@dataclass(frozen=True)
class SidePanelState:
    """The content of the tabs."""

    entry: RequestEntry | None = None
    keys: Mapping[str, str] | None = None
    """Keys by name; None if they can't be read."""
    keys_note: str = ""
    """A sentence about the API keys, safe to show."""
    key_hints: Sequence[tuple[str, str]] = ()
    """Keyboard keys for API keys: (key, description) pairs."""
    snippets: Sequence[Snippet] = ()


class SidePanelBody(VerticalScroll):
    """The scrolling text of a tab."""

    BINDING_GROUP_TITLE = "Server: tabs"
    BINDINGS: ClassVar[list[BindingType]] = scroll_bindings("server_side")


class ApiKeyList(RowList):
    """The API keys by name; the keys themselves are hidden at first."""

    def __init__(self) -> None:
        super().__init__(id="server-keys")
        self._keys: Mapping[str, str] = {}
        self._revealed = False

    def show(self, keys: Mapping[str, str], *, revealed: bool) -> None:
        self._keys, self._revealed = keys, revealed
        if list(keys) != self.keys:
            self.set_rows([ListRow(name) for name in keys])
        self.refresh()

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        del number
        column = min(24, max((cell_len(name) for name in self._keys), default=0)) + 3
        key = self._keys[row.key]
        shown = printable(key) if self._revealed else _DOTS
        return [
            (pad(printable(row.key), column), "strong"),
            (pad(shown, max(4, width - column - 1)), "muted"),
        ]


class SidePanel(Vertical):
    """Tabs above a text, or above the list of API keys."""

    tabs = getters.query_one("#server-tabs", TabStrip)
    body = getters.query_one(SidePanelBody)
    text = getters.query_one("#server-text", Static)
    note = getters.query_one("#server-about", Static)
    listed = getters.query_one(ApiKeyList)

    @dataclass
    class TabOpened(Message):
        """Another tab was opened."""

        tab: str

    def __init__(self, *, tab: str = FIRST_SNIPPET, id: str | None = None) -> None:  # noqa: A002 - as Textual has it
        super().__init__(id=id)
        self._first_tab = tab
        self._state = SidePanelState()
        self._height = -1
        self.revealed = False
        """Whether the keys are shown in plain text."""

    def compose(self) -> ComposeResult:
        yield TabStrip((), self._first_tab, id="server-tabs")
        yield Static(id="server-about", markup=False)
        yield ApiKeyList()
        with SidePanelBody(id="server-side-body"):
            yield Static(id="server-text", markup=False)

    def show(self, state: SidePanelState) -> None:
        """Show a state; the tab stays open, and the scroll position if it shows the same request."""
        before, self._state = self._state, state
        tabs = (
            Tab(REQUEST, "Request"),
            Tab(KEYS, "Keys"),
            *(Tab(snippet.id, snippet.title) for snippet in state.snippets),
        )
        if tabs != self.tabs.tabs:
            self.tabs.tabs = tabs
        if self.tab == REQUEST and before.entry is not state.entry:
            self.body.scroll_home(animate=False)
        self.draw()

    @property
    def tab(self) -> str:
        """Id of the open tab."""
        return self.tabs.active

    @property
    def snippet(self) -> Snippet | None:
        """The snippet of the open tab, if it has one."""
        return next((snippet for snippet in self._state.snippets if snippet.id == self.tab), None)

    @property
    def key_name(self) -> str | None:
        """Name of the selected API key."""
        return self.listed.cursor_key

    def open(self, tab: str) -> None:
        """Open a tab; if the focus is inside, it moves to the tab's content."""
        if tab == self.tabs.active:
            return
        inside = self.has_focus_within
        self.tabs.active = tab
        self.body.scroll_home(animate=False)
        self.draw()
        if inside:
            self.take_focus()
        self.post_message(self.TabOpened(tab))

    def step(self, by: int) -> None:
        """Open the tab `by` places from the open one."""
        self.open(self.tabs.neighbor(by))

    def take_focus(self) -> None:
        """Focus the content of the open tab."""
        if self.tab == KEYS and self.listed.keys:
            self.listed.focus()
        else:
            self.body.focus()

    def reveal(self) -> None:
        """Show or hide the API keys."""
        self.revealed = not self.revealed
        self.draw()

    def on_tab_strip_activated(self, event: TabStrip.Activated) -> None:
        event.stop()
        self.open(event.id)

    def on_resize(self) -> None:
        self.draw()

    def draw(self) -> None:
        state, tab = self._state, self.tab
        self.listed.show(state.keys or {}, revealed=self.revealed)
        self.listed.display = tab == KEYS and bool(state.keys)
        self.body.display = not self.listed.display
        snippet = self.snippet
        above: list[Part] = []
        if tab == KEYS:
            above = [(state.keys_note, "$muted"), *_hints(state.key_hints)]
        elif snippet is not None:
            above = [(snippet.where, "$muted"), *_hints([("c", "copy")])]
        self.note.display = bool(above)
        self.note.update(line(above))
        width = min(self.body.scrollable_content_region.width or self.size.width - 4, _MAX_WIDTH)
        if width <= 8:
            return
        rows: list[list[Part]] = []
        if tab == REQUEST:
            if state.entry is None:
                rows = [[("No request selected.", "$muted")]]
            else:
                rows = describe(state.entry, width)
        elif snippet is not None:
            rows = [[(text, "")] for text in snippet.text.split("\n")]
        self.text.update(lines(rows), layout=len(rows) != self._height)
        self._height = len(rows)


def _hints(keys: Sequence[tuple[str, str]]) -> list[Part]:
    parts: list[Part] = []
    for key, description in keys:
        parts += [(f"   {key}", "$accent bold"), (f" {description}", "$muted")]
    return parts


def describe(entry: RequestEntry, width: int) -> list[list[Part]]:
    """Return the description of a request as lines; styles are theme tokens."""
    mark, style = request_text.glyph(entry)
    rows: list[list[Part]] = [
        [
            (f"{mark} ", f"${style}"),
            (f"{printable(entry.method)} {printable(entry.route)}", "$strong"),
            (f"   {request_text.status_description(entry)}", "$muted" if style == "good" else f"${style}"),
        ]
    ]
    if entry.error is not None:
        rows += [[("  ", ""), (text, "")] for text in wrap(request_text.error_text(entry), width - 2)]
        if entry.error_type is not None:
            rows.append([("  ", ""), (printable(entry.error_type), "$muted")])
    rows.append([])
    rows += _fact_rows(_facts(entry), width)
    for label, text in (("Prompt", entry.prompt), ("Answer", entry.answer)):
        if text:
            safe = printable(text[:_MAX_TEXT], keep_newlines=True)
            rows += [[], [(label, "$strong")]]
            rows += [[(part, "")] for each in safe.split("\n") for part in wrap(each, width)]
    return rows


def _facts(entry: RequestEntry) -> list[tuple[str, str]]:
    tokens = f"{entry.prompt_tokens:,}"
    if entry.cached_tokens:
        tokens += f" ({entry.cached_tokens:,} cached)"
    rate = request_text.rate_text(entry.rate)
    facts = [
        ("Model", printable(entry.model or "")),
        ("Client", printable(entry.client)),
        ("Started", request_text.clock_time(entry.started_at, exact=True)),
        ("Key", printable(entry.key or "")),
        ("Tokens in", tokens if entry.prompt_tokens else ""),
        ("First token", request_text.seconds_text(entry.ttft_s)),
        ("Tokens out", f"{entry.completion_tokens:,}" if entry.completion_tokens else ""),
        ("Duration" if not entry.live else "Elapsed", request_text.seconds_text(entry.age_s)),
        ("Rate", f"{rate} tokens/s" if rate else ""),
        ("Finish reason", printable(entry.finish_reason or "")),
        ("Streamed", "yes" if entry.stream else "no"),
        ("Request ID", printable(entry.id)),
    ]
    return [(label, text) for label, text in facts if text]


def _fact_rows(facts: Sequence[tuple[str, str]], width: int) -> list[list[Part]]:
    if width < _TWO_COLUMNS:
        return [[(pad(label, _LABEL), "$muted"), (pad(text, width - _LABEL), "")] for label, text in facts]
    half = width // 2
    rows: list[list[Part]] = []
    for start in range(0, len(facts), 2):
        row: list[Part] = []
        for label, text in facts[start : start + 2]:
            row += [(pad(label, _LABEL), "$muted"), (pad(text, half - _LABEL - 1), ""), (" ", "")]
        rows.append(row)
    return rows
