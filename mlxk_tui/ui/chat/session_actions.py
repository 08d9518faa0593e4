"""The kept chats: opened, begun, listed, searched, renamed, deleted and brought back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mlxk_tui.chats.model import Listed
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation.controller import ConversationController
from mlxk_tui.ui.chat import dialog_flows
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.invitation import Opening
from mlxk_tui.ui.chat.prompt_submission import ComposerDraft
from mlxk_tui.ui.chat.session_list import UNTITLED, SessionsPanel
from mlxk_tui.ui.chat.transcript.stream_renderer import StreamRenderer

PAGE = 200
"""Chats that are read at once; more are when somebody comes near the last of them."""


class SessionActions:
    """Opens chats, and keeps the list of them true, in the pane or on the screen that lies over it.

    Args:
        host: runs the work and asks.
        talk: the open chat.
        draft: what was begun in a chat stays with it.
        renderer: shows the chat that is opened.
        panel: the list in the pane.
        changed: called when the store, or the title of the open chat, is another.
        no_mlx: whether no model can run on this machine at all.
    """

    def __init__(
        self,
        host: ScreenHost,
        talk: ConversationController,
        draft: ComposerDraft,
        renderer: StreamRenderer,
        panel: SessionsPanel,
        changed: Callable[[], None],
        *,
        no_mlx: bool,
    ) -> None:
        self.opening = Opening(no_mlx=no_mlx)
        """How far the store is."""
        self._host = host
        self._talk = talk
        self._draft = draft
        self._renderer = renderer
        self._own = panel
        self._changed = changed
        self._begun = False
        """Whether the chats were opened and listed here."""
        self._elsewhere: SessionsPanel | None = None
        self._query = ""
        self._most = PAGE
        self._deleted: list[int] = []

    # -- which chat is open ------------------------------------------------------------------------

    def open_store(self) -> None:
        """Open the store and the newest chat."""
        self._host.start("open", partial(self._open_chats, None), alone=True)

    def open(self, session_id: int) -> None:
        """Open a chat."""
        self._host.start("open", partial(self._open_guarded, session_id), alone=True)

    async def _open_guarded(self, session_id: int) -> None:
        if not self._begun:  # it ended what began with the pane, being in the same group
            await self._open_chats(session_id)
            return
        try:
            await self._open(session_id)
        except OpError as error:
            self._host.tell_error(error)

    async def _open_chats(self, session_id: int | None) -> None:
        """Open the store, then a chat: the newest one where none is named."""
        talk = self._talk
        self.opening = replace(self.opening, problem=None)
        self._changed()
        try:
            store = await talk.backend.store()
            listed = await store.list_sessions(limit=1)
            self.opening = replace(self.opening, done=True)
            if store.notice:
                self._host.notify(printable(store.notice), severity="warning", timeout=15)
            if session_id is not None:
                await self._open(session_id)
            elif listed and not talk.saved and talk.session.model is None:
                await self._open(listed[0].session.id)
        except OpError as error:
            if self.opening.done:
                self._host.tell_error(error)
            else:
                self.opening = replace(self.opening, problem=error)
                self._renderer.focus()
        self._begun = self.opening.done
        talk.choose_default_model()
        self._changed()
        self.read()

    async def _open(self, session_id: int) -> None:
        self._draft.leave()
        self._renderer.show(await self._talk.open(session_id))
        self._draft.resume()

    def begin(self, model: str | None) -> None:
        """Begin a new chat, with a model where one is named."""
        self._draft.leave()
        self._talk.begin(model)
        self._renderer.show([])
        self._draft.resume()

    def update(self, session_id: int) -> None:
        """Show a chat's new title."""
        self._host.start("session", partial(self._update, session_id), alone=True)

    async def _update(self, session_id: int) -> None:
        self.read()
        if session_id == self._talk.session.id:
            self._talk.session = await self._talk.store.session(session_id)
            self._changed()

    # -- the list ----------------------------------------------------------------------------------

    @property
    def panel(self) -> SessionsPanel:
        """The list that is looked at."""
        return self._elsewhere or self._own

    def use(self, panel: SessionsPanel | None) -> None:
        """Show the chats in another list, or in the pane's own again."""
        self._elsewhere = panel
        self.search("" if panel is not None else self._own.query_text)

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
        self._host.start("list", self._read, alone=True)

    async def _read(self) -> None:
        chats = self._talk.backend
        if (store := chats.opened) is None:
            return
        most = self._most
        try:
            # From the beginning: what was answered meanwhile stands in another place now.
            listed = await store.list_sessions(self._query or None, limit=most + 1)
        except OpError as error:
            self._host.tell_error(error)
            return
        if self.panel.is_attached:
            self.panel.show(listed[:most], self._shown, set(chats.answers), more=len(listed) > most)

    @property
    def _shown(self) -> int | None:
        return self._talk.session.id if self._talk.saved else None

    def point(self) -> None:
        """Mark the chat that is open."""
        if self.panel.is_attached:
            self.panel.listing.point(self._shown)

    def rename(self, listed: Listed | None) -> None:
        """Ask for another title."""
        if listed is not None:
            self._host.ask(self._rename(listed))

    async def _rename(self, listed: Listed) -> None:
        if await dialog_flows.rename(self._host, self._talk, listed):
            self.update(listed.session.id)

    def delete(self, listed: Listed | None) -> None:
        """Delete a chat; `undo` brings it back."""
        if listed is not None:
            self._host.start("delete", partial(self._delete, listed))

    async def _delete(self, listed: Listed) -> None:
        talk, session = self._talk, listed.session
        if answer := talk.backend.answers.get(session.id):
            answer.stop()
        try:
            await talk.store.delete_session(session.id)
        except OpError as error:
            self._host.tell_error(error)
            return
        self._deleted.append(session.id)
        title = printable(session.title) or UNTITLED
        self._host.notify(f"{title}: deleted. u brings it back.", timeout=8)
        if session.id == talk.session.id:
            self._draft.clear()
            talk.begin()
            self._renderer.show([])
        self.read()

    def undo(self) -> None:
        """Bring the chat that was deleted last back."""
        self._host.start("delete", self._undo)

    async def _undo(self) -> None:
        if not self._deleted:
            self._host.notify("Nothing was deleted.", timeout=3)
            return
        try:
            session = await self._talk.store.restore_session(self._deleted.pop())
        except OpError as error:
            self._host.tell_error(error)
            return
        self._host.notify(f"{printable(session.title) or UNTITLED}: brought back.", timeout=3)
        self.read()
