"""Actions on chats: open, create, list, search, rename, delete and restore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mlxk_tui.chats.model import SessionListItem
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation.controller import ConversationController
from mlxk_tui.ui.chat import dialog_flows
from mlxk_tui.ui.chat.empty_chat import StoreState
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.prompt_submission import ComposerDraft
from mlxk_tui.ui.chat.session_list import UNTITLED, SessionsPanel
from mlxk_tui.ui.chat.transcript.stream_renderer import StreamRenderer

PAGE = 200
"""Chats that are listed at once; more are loaded when the cursor or the view comes near the last one."""


class SessionActions:
    """Opens chats and updates the list of chats, in the pane or on the screen over it.

    Args:
        host: runs workers and dialogs.
        controller: the open chat.
        draft: saves and restores the draft of each chat.
        renderer: shows the open chat.
        panel: the list in the pane.
        on_change: called when the state of the store or the title of the open chat changed.
        no_mlx: whether mlx-lm is missing, so that no model can run.
    """

    def __init__(
        self,
        host: ScreenHost,
        controller: ConversationController,
        draft: ComposerDraft,
        renderer: StreamRenderer,
        panel: SessionsPanel,
        on_change: Callable[[], None],
        *,
        no_mlx: bool,
    ) -> None:
        self.store_state = StoreState(no_mlx=no_mlx)
        self._host = host
        self._controller = controller
        self._draft = draft
        self._renderer = renderer
        self._pane_panel = panel
        self._on_change = on_change
        self._opened = False
        """Whether the store was opened and its chats were listed."""
        self._screen_panel: SessionsPanel | None = None
        """The list on the screen over the pane, while that is open."""
        self._query = ""
        self._limit = PAGE
        self._deleted: list[int] = []
        """Ids of the deleted chats, the latest last."""

    # -- the open chat -----------------------------------------------------------------------------

    def open_store(self) -> None:
        """Open the store and the newest chat."""
        self._host.start("open", partial(self._open_chats, None), exclusive=True)

    def open(self, session_id: int) -> None:
        self._host.start("open", partial(self._open_guarded, session_id), exclusive=True)

    async def _open_guarded(self, session_id: int) -> None:
        if not self._opened:  # this worker cancelled `open_store`, which is in the same group
            await self._open_chats(session_id)
            return
        try:
            await self._open(session_id)
        except OpError as error:
            self._host.notify_error(error)

    async def _open_chats(self, session_id: int | None) -> None:
        """Open the store, then a chat: by default the newest one."""
        controller = self._controller
        self.store_state = replace(self.store_state, problem=None)
        self._on_change()
        try:
            store = await controller.backend.store()
            listed = await store.list_sessions(limit=1)
            self.store_state = replace(self.store_state, done=True)
            if store.notice:
                self._host.notify(printable(store.notice), severity="warning", timeout=15)
            if session_id is not None:
                await self._open(session_id)
            elif listed and not controller.saved and controller.session.model is None:
                await self._open(listed[0].session.id)
        except OpError as error:
            if self.store_state.done:
                self._host.notify_error(error)
            else:
                self.store_state = replace(self.store_state, problem=error)
                self._renderer.focus()
        self._opened = self.store_state.done
        controller.choose_default_model()
        self._on_change()
        self.refresh()

    async def _open(self, session_id: int) -> None:
        self._draft.stash()
        self._renderer.show(await self._controller.open(session_id))
        self._draft.restore()

    def start_chat(self, model: str | None) -> None:
        """Start a new chat, by default with the current model."""
        self._draft.stash()
        self._controller.begin(model)
        self._renderer.show([])
        self._draft.restore()

    def update(self, session_id: int) -> None:
        """Show a changed chat, such as its new title."""
        self._host.start("session", partial(self._update, session_id), exclusive=True)

    async def _update(self, session_id: int) -> None:
        self.refresh()
        if session_id == self._controller.session.id:
            self._controller.session = await self._controller.store.session(session_id)
            self._on_change()

    # -- the list ----------------------------------------------------------------------------------

    @property
    def panel(self) -> SessionsPanel:
        """The list that is visible."""
        return self._screen_panel or self._pane_panel

    def show_in(self, panel: SessionsPanel | None) -> None:
        """Show the chats in the list of a screen; None: in the pane's again."""
        self._screen_panel = panel
        self.search("" if panel is not None else self._pane_panel.query_text)

    def search(self, query: str) -> None:
        """List the chats that match a query; all chats for an empty one."""
        if query != self._query:
            self._query, self._limit = query, PAGE
        self.refresh()

    def load_more(self) -> None:
        """List older chats too, if there are any."""
        shown = len(self.panel.listing.keys)
        if self.panel.has_more and shown >= self._limit:  # else they are being loaded
            self._limit = shown + PAGE
            self.refresh()

    def refresh(self) -> None:
        """Load the list again."""
        self._host.start("list", self._refresh, exclusive=True)

    async def _refresh(self) -> None:
        chats = self._controller.backend
        if (store := chats.opened) is None:
            return
        limit = self._limit
        try:
            # From the start: answers change the order.
            listed = await store.list_sessions(self._query or None, limit=limit + 1)
        except OpError as error:
            self._host.notify_error(error)
            return
        if self.panel.is_attached:
            self.panel.show(listed[:limit], self._open_id, set(chats.answers), has_more=len(listed) > limit)

    @property
    def _open_id(self) -> int | None:
        return self._controller.session.id if self._controller.saved else None

    def mark_open(self) -> None:
        """Mark the open chat in the list."""
        if self.panel.is_attached:
            self.panel.listing.mark_open(self._open_id)

    def rename(self, listed: SessionListItem | None) -> None:
        """Ask for a new title of a chat."""
        if listed is not None:
            self._host.run_dialog(self._rename(listed))

    async def _rename(self, listed: SessionListItem) -> None:
        if await dialog_flows.rename(self._host, self._controller, listed):
            self.update(listed.session.id)

    def delete(self, listed: SessionListItem | None) -> None:
        """Delete a chat; `undo` restores it."""
        if listed is not None:
            self._host.start("delete", partial(self._delete, listed))

    async def _delete(self, listed: SessionListItem) -> None:
        controller, session = self._controller, listed.session
        if answer := controller.backend.answers.get(session.id):
            answer.stop()
        try:
            await controller.store.delete_session(session.id)
        except OpError as error:
            self._host.notify_error(error)
            return
        self._deleted.append(session.id)
        title = printable(session.title) or UNTITLED
        self._host.notify(f"Deleted: {title}. Press u to undo.", timeout=8)
        if session.id == controller.session.id:
            self._draft.clear()
            controller.begin()
            self._renderer.show([])
        self.refresh()

    def undo(self) -> None:
        """Restore the chat that was deleted last."""
        self._host.start("delete", self._undo)

    async def _undo(self) -> None:
        if not self._deleted:
            self._host.notify("Nothing to undo.", timeout=3)
            return
        try:
            session = await self._controller.store.restore_session(self._deleted.pop())
        except OpError as error:
            self._host.notify_error(error)
            return
        self._host.notify(f"Restored: {printable(session.title) or UNTITLED}", timeout=3)
        self.refresh()
