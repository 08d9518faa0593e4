"""What stands below the requests: one of them, the API keys, and how other programs are pointed here."""

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
from mlxk_tui.ui.server import request_text as said
from mlxk_tui.ui.server.snippets import Snippet
from mlxk_tui.ui.widgets.row_list import ListRow, RowList
from mlxk_tui.ui.widgets.scrolling import scroll_bindings
from mlxk_tui.ui.widgets.tab_strip import Tab, TabStrip
from mlxk_tui.ui.widgets.text import Part, line, lines, pad, wrap

REQUEST, KEYS, FIRST_SNIPPET = "request", "keys", "curl"
_LABEL = 13
_TWO_COLUMNS = 84
_MAX_WIDTH = 110
_MAX_TEXT = 4_000
"""Characters of a prompt or an answer that are shown."""
_DOTS = "•" * 12


@dataclass(frozen=True)
class Shown:
    """What the tabs show."""

    entry: RequestEntry | None = None
    keys: Mapping[str, str] | None = None
    """Name to key; None where they cannot be read."""
    about_keys: str = ""
    """A sentence; safe to show."""
    keys_of_keys: Sequence[tuple[str, str]] = ()
    """Keys of the keyboard, and what they do with API keys."""
    snippets: Sequence[Snippet] = ()


class SideBody(VerticalScroll):
    """The scrolling text of a tab."""

    BINDINGS: ClassVar[list[BindingType]] = scroll_bindings("server_side")


class KeyList(RowList):
    """The API keys by name, hidden until they are asked for."""

    def __init__(self) -> None:
        super().__init__(id="server-keys")
        self._keys: Mapping[str, str] = {}
        self._open = False

    def show(self, keys: Mapping[str, str], *, revealed: bool) -> None:
        """Show these."""
        self._keys, self._open = keys, revealed
        if list(keys) != self.keys:
            self.set_rows([ListRow(name) for name in keys])
        self.refresh()

    def row_line(self, row: ListRow, number: int, width: int) -> list[Part]:
        """Draw a key."""
        del number
        column = min(24, max((cell_len(name) for name in self._keys), default=0)) + 3
        key = self._keys[row.key]
        shown = printable(key) if self._open else _DOTS
        return [
            (pad(printable(row.key), column), "strong"),
            (pad(shown, max(4, width - column - 1)), "muted"),
        ]


class ServerSide(Vertical):
    """Tabs over a text, or over the list of keys."""

    tabs = getters.query_one("#server-tabs", TabStrip)
    body = getters.query_one(SideBody)
    text = getters.query_one("#server-text", Static)
    about = getters.query_one("#server-about", Static)
    listed = getters.query_one(KeyList)

    @dataclass
    class Opened(Message):
        """Another tab was opened."""

        tab: str

    def __init__(self, *, tab: str = FIRST_SNIPPET, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._first_tab = tab
        self._shown = Shown()
        self._height = -1
        self.revealed = False
        """Whether keys stand in plain text."""

    def compose(self) -> ComposeResult:
        """Lay out the tabs over the text."""
        yield TabStrip((), self._first_tab, id="server-tabs")
        yield Static(id="server-about", markup=False)
        yield KeyList()
        with SideBody(id="server-side-body"):
            yield Static(id="server-text", markup=False)

    def show(self, shown: Shown) -> None:
        """Show this; the open tab stays open, and the place in it where it shows the same."""
        before, self._shown = self._shown, shown
        tabs = (
            Tab(REQUEST, "Request"),
            Tab(KEYS, "Keys"),
            *(Tab(snippet.id, snippet.title) for snippet in shown.snippets),
        )
        if tabs != self.tabs.tabs:
            self.tabs.tabs = tabs
        if self.tab == REQUEST and before.entry is not shown.entry:
            self.body.scroll_home(animate=False)
        self.draw()

    @property
    def tab(self) -> str:
        """Id of the open tab."""
        return self.tabs.active

    @property
    def snippet(self) -> Snippet | None:
        """The snippet that is shown."""
        return next((snippet for snippet in self._shown.snippets if snippet.id == self.tab), None)

    @property
    def key_name(self) -> str | None:
        """Name of the key that is acted on."""
        return self.listed.cursor_key

    def open(self, tab: str) -> None:
        """Open a tab; the focus stays in here where it is here."""
        if tab == self.tabs.active:
            return
        inside = self.has_focus_within
        self.tabs.active = tab
        self.body.scroll_home(animate=False)
        self.draw()
        if inside:
            self.take_focus()
        self.post_message(self.Opened(tab))

    def step(self, by: int) -> None:
        """Open the tab `by` places on."""
        self.open(self.tabs.neighbour(by))

    def take_focus(self) -> None:
        """Give the focus to what the open tab shows."""
        if self.tab == KEYS and self.listed.keys:
            self.listed.focus()
        else:
            self.body.focus()

    def reveal(self) -> None:
        """Show the keys, or hide them again."""
        self.revealed = not self.revealed
        self.draw()

    def on_tab_strip_opened(self, event: TabStrip.Opened) -> None:
        """Open the tab that was clicked."""
        event.stop()
        self.open(event.id)

    def on_resize(self) -> None:
        """Draw for the new width."""
        self.draw()

    def draw(self) -> None:
        """Draw what is known now."""
        shown, tab = self._shown, self.tab
        self.listed.show(shown.keys or {}, revealed=self.revealed)
        self.listed.display = tab == KEYS and bool(shown.keys)
        self.body.display = not self.listed.display
        snippet = self.snippet
        above: list[Part] = []
        if tab == KEYS:
            above = [(shown.about_keys, "$muted"), *_hints(shown.keys_of_keys)]
        elif snippet is not None:
            above = [(snippet.where, "$muted"), *_hints([("c", "copy")])]
        self.about.display = bool(above)
        self.about.update(line(above))
        width = min(self.body.scrollable_content_region.width or self.size.width - 4, _MAX_WIDTH)
        if width <= 8:
            return
        rows: list[list[Part]] = []
        if tab == REQUEST:
            if shown.entry is None:
                rows = [[("No request is selected.", "$muted")]]
            else:
                rows = describe(shown.entry, width)
        elif snippet is not None:
            rows = [[(text, "")] for text in snippet.text.split("\n")]
        self.text.update(lines(rows), layout=len(rows) != self._height)
        self._height = len(rows)


def _hints(keys: Sequence[tuple[str, str]]) -> list[Part]:
    parts: list[Part] = []
    for key, does in keys:
        parts += [(f"   {key}", "$accent bold"), (f" {does}", "$muted")]
    return parts


def describe(entry: RequestEntry, width: int) -> list[list[Part]]:
    """Return the lines about a request; styles are theme tokens."""
    mark, style = said.glyph(entry)
    rows: list[list[Part]] = [
        [
            (f"{mark} ", f"${style}"),
            (f"{printable(entry.method)} {printable(entry.route)}", "$strong"),
            (f"   {said.status_phrase(entry)}", "$muted" if style == "good" else f"${style}"),
        ]
    ]
    if entry.error is not None:
        rows += [[("  ", ""), (text, "")] for text in wrap(said.error_text(entry), width - 2)]
        if entry.error_type is not None:
            rows.append([("  ", ""), (printable(entry.error_type), "$muted")])
    rows.append([])
    rows += _facts(_of(entry), width)
    for label, text in (("Prompt", entry.prompt), ("Answer", entry.answer)):
        if text:
            safe = printable(text[:_MAX_TEXT], keep_newlines=True)
            rows += [[], [(label, "$strong")]]
            rows += [[(part, "")] for each in safe.split("\n") for part in wrap(each, width)]
    return rows


def _of(entry: RequestEntry) -> list[tuple[str, str]]:
    tokens = f"{entry.prompt_tokens:,}"
    if entry.cached_tokens:
        tokens += f", {entry.cached_tokens:,} of them kept from before"
    rate = said.rate_text(entry.rate)
    facts = [
        ("Model", printable(entry.model or "")),
        ("Client", printable(entry.client)),
        ("Began", said.clock_time(entry.started_at, exact=True)),
        ("Key", printable(entry.key or "")),
        ("Tokens in", tokens if entry.prompt_tokens else ""),
        ("First token", said.seconds_text(entry.ttft_s)),
        ("Tokens out", f"{entry.completion_tokens:,}" if entry.completion_tokens else ""),
        ("Took" if not entry.live else "So far", said.seconds_text(entry.age_s)),
        ("Rate", f"{rate} tokens/s" if rate else ""),
        ("Ended by", printable(entry.finish_reason or "")),
        ("Streamed", "yes" if entry.stream else "no"),
        ("Request", printable(entry.id)),
    ]
    return [(label, text) for label, text in facts if text]


def _facts(facts: Sequence[tuple[str, str]], width: int) -> list[list[Part]]:
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
