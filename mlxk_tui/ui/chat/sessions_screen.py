"""The list of chats as a full screen, for terminals below 100 columns."""

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
from mlxk_tui.ui.shell.footer import KeyFooter
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.row_list import RowList


class SessionsScreen(OverlayScreen[None]):
    """The chats on the full screen.

    Args:
        sessions: the actions on chats.
        now: returns the current time, for ages.
        open_chat: called with the id of the selected chat.
        new_chat: called for a new chat.
        search: whether the search input has the focus first.
    """

    BINDING_GROUP_TITLE = "Chat: list of chats on a narrow terminal"
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
        open_chat: Callable[[int], object],
        new_chat: Callable[[], object],
        search: bool = False,
    ) -> None:
        super().__init__()
        self._sessions = sessions
        self._now = now
        self._open_chat = open_chat
        self._new_chat = new_chat
        self._search = search

    def compose(self) -> ComposeResult:
        yield SessionsPanel(now=self._now, id="chats")
        yield KeyFooter()

    def on_mount(self) -> None:
        self._sessions.show_in(self.panel)
        if self._search:
            self.call_after_refresh(self.panel.open_search)

    def on_unmount(self) -> None:
        self._sessions.show_in(None)

    def on_resize(self) -> None:
        """Close once there is room for the list in the pane below."""
        if self.size.width >= WIDE:
            self.dismiss()

    def on_sessions_panel_searched(self, event: SessionsPanel.Searched) -> None:
        self._sessions.search(event.query)

    def on_session_list_more_requested(self) -> None:
        self._sessions.load_more()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        event.stop()
        self.dismiss()
        self._open_chat(int(event.key))

    def action_new(self) -> None:
        self.dismiss()
        self._new_chat()

    def action_search(self) -> None:
        self.panel.open_search()

    def action_rename(self) -> None:
        self._sessions.rename(self.panel.listing.selected)

    def action_delete(self) -> None:
        self._sessions.delete(self.panel.listing.selected)

    def action_undo(self) -> None:
        self._sessions.undo()
