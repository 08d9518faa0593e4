"""The list of chats as a screen of its own, for terminals below 100 columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from textual import getters
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from mlxk_tui.ui.chat import keys
from mlxk_tui.ui.chat.session_actions import SessionActions
from mlxk_tui.ui.chat.session_list import SessionsPanel
from mlxk_tui.ui.inspector.screens import WIDE
from mlxk_tui.ui.shell.footer import KeyLine
from mlxk_tui.ui.widgets.row_list import RowList
from mlxk_tui.ui.widgets.transient import Transient


class SessionsScreen(Transient[None]):
    """The chats, over the whole screen.

    Args:
        sessions: what can be done with chats.
        now: returns the present time, for the ages.
        choose: called with the chat to open.
        begin: called for a new chat.
        search: whether it opens in the search line.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Back", key_display="esc", id="sessions.back"),
        keys.NEW,
        keys.SEARCH,
        keys.UNDO,
    ]
    AUTO_FOCUS = "SessionList"

    panel = getters.query_one(SessionsPanel)

    def __init__(
        self,
        sessions: SessionActions,
        *,
        now: Callable[[], datetime],
        choose: Callable[[int], object],
        begin: Callable[[], object],
        search: bool = False,
    ) -> None:
        super().__init__()
        self._sessions = sessions
        self._now = now
        self._choose = choose
        self._begin = begin
        self._search = search

    def compose(self) -> ComposeResult:
        """Lay out the list."""
        yield SessionsPanel(now=self._now, id="chats")
        yield KeyLine()

    def on_mount(self) -> None:
        """Show the chats."""
        self._sessions.use(self.panel)
        if self._search:
            self.call_after_refresh(self.panel.open_search)

    def on_unmount(self) -> None:
        """Give the list back to the pane."""
        self._sessions.use(None)

    def on_resize(self) -> None:
        """Make way for the pane's own list once the terminal is wide enough for it."""
        if self.size.width >= WIDE:
            self.dismiss()

    def on_sessions_panel_searched(self, event: SessionsPanel.Searched) -> None:
        """Look for the words."""
        self._sessions.search(event.query)

    def on_session_list_wants_more(self) -> None:
        """Read older chats."""
        self._sessions.read_more()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Open a chat."""
        event.stop()
        self.dismiss()
        self._choose(int(event.key))

    def action_new(self) -> None:
        """Begin a new chat."""
        self.dismiss()
        self._begin()

    def action_search(self) -> None:
        """Go into the search line."""
        self.panel.open_search()

    def action_rename(self) -> None:
        """Give the chat under the cursor another title."""
        self._sessions.rename(self.panel.listing.chosen)

    def action_delete(self) -> None:
        """Delete the chat under the cursor."""
        self._sessions.delete(self.panel.listing.chosen)

    def action_undo(self) -> None:
        """Bring the last deleted chat back."""
        self._sessions.undo()
