"""The kept chats as the Chat pane lists them: searched, renamed, deleted and brought back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mlxk_tui.chats.model import Listed
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ui.chat import dialog_flows as asking
from mlxk_tui.ui.chat.session_list import UNTITLED, SessionsPanel
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.inspector.model_actions import Host

if TYPE_CHECKING:
    from mlxk_tui.ui.chat.pane import ChatPane

PAGE = 200
"""Chats that are read at once; more are when somebody comes near the last of them."""


class SessionActions:
    """Keeps the list true, in the pane or on the screen that lies over it.

    Args:
        pane: the pane.
    """

    def __init__(self, pane: ChatPane) -> None:
        self._pane = pane
        self._elsewhere: SessionsPanel | None = None
        self._query = ""
        self._most = PAGE
        self._deleted: list[int] = []

    @property
    def panel(self) -> SessionsPanel:
        """The list that is looked at."""
        return self._elsewhere or self._pane.own_list

    def use(self, panel: SessionsPanel | None) -> None:
        """Show the chats in another list, or in the pane's own again."""
        self._elsewhere = panel
        self.search("" if panel is not None else self._pane.own_list.query_text)

    def search(self, query: str) -> None:
        """List the chats that hold words; all of them without words."""
        if query != self._query:
            self._query, self._most = query, PAGE
        self.read()

    def read_more(self) -> None:
        """List older chats too, where there are any."""
        shown = len(self.panel.listing.keys)
        if self.panel.more and shown >= self._most:  # else they are being read
            self._most = shown + PAGE
            self.read()

    def read(self) -> None:
        """Read the list again."""
        self._pane.start("list", self._read, alone=True)

    async def _read(self) -> None:
        chats = self._pane.context.chats
        if (store := chats.opened) is None:
            return
        most = self._most
        try:
            # From the beginning: what was answered meanwhile stands in another place now.
            listed = await store.list_sessions(self._query or None, limit=most + 1)
        except OpError as error:
            model_actions.tell_error(self._pane, error)
            return
        if self.panel.is_attached:
            self.panel.show(listed[:most], self._open, set(chats.answers), more=len(listed) > most)

    @property
    def _open(self) -> int | None:
        talk = self._pane.talk
        return talk.session.id if talk.saved else None

    def point(self) -> None:
        """Mark the chat that is open."""
        if self.panel.is_attached:
            self.panel.listing.point(self._open)

    def rename(self, host: Host, listed: Listed | None) -> None:
        """Ask for another title."""
        if listed is not None:
            model_actions.ask(host, asking.rename(self._pane, host, listed))

    def delete(self, listed: Listed | None) -> None:
        """Delete a chat; `undo` brings it back."""
        if listed is not None:
            self._pane.start("delete", partial(self._delete, listed))

    async def _delete(self, listed: Listed) -> None:
        pane, session = self._pane, listed.session
        if answer := pane.context.chats.answers.get(session.id):
            answer.stop()
        try:
            await pane.talk.store.delete_session(session.id)
        except OpError as error:
            model_actions.tell_error(pane, error)
            return
        self._deleted.append(session.id)
        title = printable(session.title) or UNTITLED
        pane.notify(f"{title}: deleted. u brings it back.", markup=False, timeout=8)
        if session.id == pane.talk.session.id:
            pane.leave_deleted()
        self.read()

    def undo(self) -> None:
        """Bring the chat that was deleted last back."""
        self._pane.start("delete", self._undo)

    async def _undo(self) -> None:
        pane = self._pane
        if not self._deleted:
            pane.notify("Nothing was deleted.", markup=False, timeout=3)
            return
        try:
            session = await pane.talk.store.restore_session(self._deleted.pop())
        except OpError as error:
            model_actions.tell_error(pane, error)
            return
        pane.notify(f"{printable(session.title) or UNTITLED}: brought back.", markup=False, timeout=3)
        self.read()
