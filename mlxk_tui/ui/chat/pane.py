"""The Chat pane: the kept chats, the open conversation, and the composer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, cast

from textual import getters, work
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.chats.model import Message, MessageState, Role
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.answer import Answer
from mlxk_tui.services.conversation.controller import WINDOW, ConversationController, PendingQuestion
from mlxk_tui.services.library import Changed
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.ui.chat import dialog_flows as asking, keys, status_lines
from mlxk_tui.ui.chat.attachments import AttachmentBar
from mlxk_tui.ui.chat.bar import ChatBar
from mlxk_tui.ui.chat.composer import Composer
from mlxk_tui.ui.chat.composer_draft import ComposerDraft
from mlxk_tui.ui.chat.invitation import ChatInvite
from mlxk_tui.ui.chat.message_actions import MessageActions
from mlxk_tui.ui.chat.prompt_submission import PromptSubmission
from mlxk_tui.ui.chat.session_actions import SessionActions
from mlxk_tui.ui.chat.session_list import UNTITLED, SessionsPanel
from mlxk_tui.ui.chat.sessions_screen import SessionsScreen
from mlxk_tui.ui.chat.status_lines import Notes, Opening, model_gone
from mlxk_tui.ui.chat.stream_renderer import StreamRenderer
from mlxk_tui.ui.chat.view import ConversationView
from mlxk_tui.ui.inspector import model_actions, pull_actions
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.pane import Pane
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.row_list import RowList

_OF_MESSAGE = {"copy", "copy_code", "fold", "again", "edit", "branch"}


class ChatPane(Pane):
    """Sessions, conversation, composer."""

    pane_id = "chat"
    AUTO_FOCUS = "#composer"
    BINDINGS: ClassVar[list[BindingType]] = keys.PANE

    conversation = getters.query_one("#conversation", ConversationView)
    composer = getters.query_one("#composer", Composer)
    bar = getters.query_one("#chat-bar", ChatBar)
    chips = getters.query_one("#chat-files", AttachmentBar)
    note = getters.query_one("#chat-note", Static)
    panel = getters.query_one("#chat-panel", Vertical)
    invite = getters.query_one(ChatInvite)
    own_list = getters.query_one("#chats", SessionsPanel)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.talk = ConversationController(context.chats, context.library)
        self.listing = SessionActions(self)
        self.sender = PromptSubmission(self)
        self.reader = MessageActions(self)
        self.writer = ComposerDraft(self)
        self.painter = StreamRenderer(self)
        runtime = context.runtime
        no_mlx = runtime.mlx_lm is None if runtime else importlib.util.find_spec("mlx_lm") is None
        self.opening = Opening(no_mlx=no_mlx)
        self._begun = False
        """Whether the chats were opened and listed here."""
        self._below = False
        self._tight = False

    def body(self) -> Iterable[Widget]:
        """Lay out the pane."""
        prompt = Static("❯", id="chat-prompt", markup=False)
        panel = Vertical(
            ConversationView(id="conversation"),
            ChatInvite(id="chat-invite"),
            Static(id="chat-note", markup=False),
            ChatBar(id="chat-bar"),
            AttachmentBar(id="chat-files"),
            Horizontal(prompt, Composer(id="composer"), id="chat-line"),
            id="chat-panel",
        )
        yield Horizontal(SessionsPanel(now=self.context.library.now, id="chats"), panel, id="chat-body")

    def on_mount(self) -> None:
        """Open the chats."""
        self.context.chats.answers_changed.subscribe(self, self._answer_changed)
        self.context.chats.storing_changed.subscribe(self, lambda _: self.draw_note())
        self.context.chats.unsent = self.writer.unsent
        self.painter.mount()
        self._open_store()

    def start(self, group: str, job: Callable[[], Coroutine[Any, Any, None]], *, alone: bool = False) -> None:
        """Run a job in a worker; `alone` ends the one before it, even before its first step."""
        # Textual's type of a worker's job (8.2.8) fits no coroutine function that returns None.
        todo = cast("Callable[[], None]", job)
        self.run_worker(todo, group=f"chat-{group}", exclusive=alone, exit_on_error=False)

    # -- which chat is open ------------------------------------------------------------------------

    @work(group="chat-open", exclusive=True, exit_on_error=False)
    async def _open_store(self) -> None:
        await self._open_chats(None)

    @work(group="chat-open", exclusive=True, exit_on_error=False)
    async def open_session(self, session_id: int) -> None:
        """Open a chat."""
        if not self._begun:  # it ended what began with the pane, being in the same group
            await self._open_chats(session_id)
            return
        try:
            await self._open(session_id)
        except OpError as error:
            model_actions.tell_error(self, error)

    async def _open_chats(self, session_id: int | None) -> None:
        """Open the store, then a chat: the newest one where none is named."""
        self.opening = replace(self.opening, problem=None)
        self.draw_state()
        try:
            store = await self.context.chats.store()
            listed = await store.list_sessions(limit=1)
            self.opening = replace(self.opening, done=True)
            if store.notice:
                self.notify(printable(store.notice), severity="warning", timeout=15, markup=False)
            if session_id is not None:
                await self._open(session_id)
            elif listed and not self.talk.saved and self.talk.session.model is None:
                await self._open(listed[0].session.id)
        except OpError as error:
            if self.opening.done:
                model_actions.tell_error(self, error)
            else:
                self.opening = replace(self.opening, problem=error)
                self.conversation.focus()
        self._begun = self.opening.done
        self.talk.choose_a_model()
        self.draw_state()
        self.listing.read()

    async def _open(self, session_id: int) -> None:
        self.writer.leave_draft()
        found = await self.talk.open(session_id)
        self.show(found)
        self.writer.take_draft()

    def begin(self, model: str | None) -> None:
        """Begin a new chat, with a model where one is named."""
        self.writer.leave_draft()
        self.talk.begin(model)
        self.show([])
        self.writer.take_draft()

    def leave_deleted(self) -> None:
        """Go to a new chat, the open one having been deleted."""
        self.writer.clear()
        self.talk.begin()
        self.show([])

    def show(self, found: list[Message], *, keep: bool = False) -> None:
        """Draw a conversation; `keep` leaves the place on the screen as it is."""
        self.reader.more = len(found) >= WINDOW
        self._below = self._tight = False
        answer = self.talk.answer
        if answer is None or not found or found[-1].id != answer.message.id:
            self.conversation.show(found, keep=keep)
        else:
            # What is stored may be behind: all of the text comes from the answer itself.
            found = [*found[:-1], replace(found[-1], content="", reasoning="")]
            self.conversation.show(found, answer.live(), keep=keep)
            self.conversation.feed(answer.message.id, *answer.all_text(), answer.live())
        self.painter.follow()
        self.listing.point()
        self.draw_state()

    @work(group="chat-session", exclusive=True, exit_on_error=False)
    async def session_changed(self, session_id: int) -> None:
        """Draw a chat's new title."""
        self.listing.read()
        if session_id == self.talk.session.id:
            self.talk.session = await self.talk.store.session(session_id)
            self.draw_state()

    # -- drawing -----------------------------------------------------------------------------------

    def draw_library(self, change: Changed) -> None:
        """Draw what depends on which models there are."""
        del change
        if self.opening.done:
            self.talk.choose_a_model()
        self.draw_state()

    def draw_state(self) -> None:
        """Draw everything but the messages."""
        title = printable(self.talk.session.title) or (UNTITLED if self.opening.done else "Chat")
        self.panel.border_title = Content(title)
        self._draw_bar()
        empty = not self.conversation.blocks
        self.panel.set_class(empty, "-empty")
        if empty:
            questions = status_lines.invite(self.invite.view, self.opening, self.talk)
            suggest = partial(self.invite.suggest, questions)
            self.start("suggest", suggest, alone=True)
        self.draw_note()
        self.update_keys()

    def _draw_bar(self) -> None:
        self.bar.show(status_lines.bar_state(self.talk, self.conversation.last(Role.ASSISTANT)))

    def draw_note(self) -> None:
        """Draw the line above the composer, where there is something to say."""
        store, name = self.context.chats.opened, self.talk.session.model
        is_gone = model_gone(self.context.library, name)
        text, style = status_lines.note(
            Notes(
                write_error=store.write_error if store is not None else None,
                gone=name if is_gone else None,
                editing=self.writer.editing is not None,
                below=self._below,
                tight=self._tight,
            )
        )
        self.note.display = bool(text)
        self.note.update(Content.styled(text, style))

    # -- the answer that is being written ----------------------------------------------------------

    def answer_began(self, model: Runnable) -> None:
        """Follow an answer."""
        self._tight = model.fit is MemoryFit.TIGHT
        self.painter.follow()
        self.draw_state()

    def answer_drawn(self, *, grown: bool) -> None:
        """Draw what stands around an answer that has been drawn; `grown` where it has got more text."""
        if grown and not self.conversation.following and not self._below:
            self._below = True
            self.draw_note()
        self._draw_bar()

    def on_screen_resume(self) -> None:
        """Catch up with what was written meanwhile."""
        super().on_screen_resume()
        self.painter.paint()

    def _answer_changed(self, answer: Answer) -> None:
        """Draw that an answer began or ended."""
        ended = answer.session.id not in self.context.chats.answers
        if answer.session.id == self.talk.session.id:
            if ended:
                self._tight = False
                self.painter.draw(answer)
                self.conversation.settle(answer.message)
            self.painter.follow()
            self.draw_state()
        self.session_changed(answer.session.id)
        self.draw_shell()
        if ended:
            self._tell_end(answer)

    def _tell_end(self, answer: Answer) -> None:
        if answer.lost is not None:
            model_actions.tell_error(self, answer.lost)
        here = self.app.current_mode == self.pane_id and answer.session.id == self.talk.session.id
        error = answer.error
        if here and error is not None and error.type is ErrorType.INSUFFICIENT_MEMORY:
            self.sender.offer_again(error, answer.message)
        elif not here and answer.message.state is not MessageState.STOPPED:
            said = error_text(error) if error else "The answer is there."
            title = printable(answer.session.title) or UNTITLED
            self.notify(said, title=title, severity="error" if error else "information", markup=False)

    # -- the composer ------------------------------------------------------------------------------

    def on_composer_sent(self, event: Composer.Sent) -> None:
        """Send the question."""
        if (question := self.writer.question(event.text)) is not None:
            self.sender.send(question)

    def on_text_area_changed(self) -> None:
        """Let keys come before the answer."""
        self.painter.typed()

    def on_chat_invite_asked(self, event: ChatInvite.Asked) -> None:
        """Send a suggested question."""
        self.composer.focus()
        self.sender.send(PendingQuestion(event.question))

    def on_attachment_bar_removed(self, event: AttachmentBar.Removed) -> None:
        """Take a file out."""
        self.writer.remove(event.index)

    def on_composer_erased(self) -> None:
        """Take the last file out."""
        self.writer.remove(-1)

    @work(group="chat-attach", exit_on_error=False)
    async def on_composer_attach(self, event: Composer.Attach) -> None:
        """Attach what was dragged in."""
        await asking.add_files(self, event.paths)

    def on_composer_pasted(self, event: Composer.Pasted) -> None:
        """Attach a long paste."""
        self.writer.paste(event.text)

    def on_composer_recall(self, event: Composer.Recall) -> None:
        """Take an earlier or later question up again."""
        self.writer.recall(event.way)

    def on_composer_left(self) -> None:
        """Stop the answer, leave an edit, or go to the messages: the first that there is."""
        if self.talk.answer is not None:
            self.talk.answer.stop()
        elif self.writer.editing is not None:
            self.writer.clear()
        else:
            self.conversation.focus()

    # -- what the widgets tell ---------------------------------------------------------------------

    def on_sessions_panel_searched(self, event: SessionsPanel.Searched) -> None:
        """Look for words."""
        self.listing.search(event.query)

    def on_session_list_wants_more(self) -> None:
        """Read older chats."""
        self.listing.read_more()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Open the chat."""
        event.stop()
        self.open_session(int(event.key))

    def on_conversation_view_wants_more(self) -> None:
        """Read earlier messages."""
        self.reader.read_more()

    def on_conversation_view_followed(self, event: ConversationView.Followed) -> None:
        """Forget the hint once the end is in sight."""
        if event.following and self._below:
            self._below = False
            self.draw_note()

    def on_conversation_view_moved(self) -> None:
        """Know which keys work for the message under the cursor."""
        self.update_keys()

    def on_conversation_view_clicked(self, event: ConversationView.Clicked) -> None:
        """Do what was clicked on inside a message."""
        self.reader.clicked(event.what)

    def on_chat_bar_opened(self, event: ChatBar.Opened) -> None:
        """Open the choice of models, or the settings."""
        if event.what == "model":
            self.action_model()
        else:
            self.action_settings()

    # -- actions -----------------------------------------------------------------------------------

    def why_not(self, action: str) -> str | None:
        """Return why an action is not possible now."""
        if action in {"new", "search", "undo", "settings", "attach"} and not self.opening.done:
            return "The chats are not open."
        if action == "retry_store" and self.opening.problem is None:
            return "The chats are open." if self.opening.done else "The chats are being opened."
        if action == "export" and not self.talk.saved:
            return "There is nothing to export yet."
        if action == "model" and not models.answering(self.context.library):
            return "No model of the cache can answer here."
        if action == "pull" and not model_gone(self.context.library, self.talk.session.model):
            return "The model of this chat is there."
        if action in _OF_MESSAGE:
            reason = self.reader.why_not(action) if self.is_mounted else "There is no message yet."
            return reason or (self.sender.why_not() if action == "again" else None)
        return None

    def action_write(self) -> None:
        """Go to the composer."""
        self.composer.focus()

    def action_retry_store(self) -> None:
        """Try again to open the chats."""
        self._open_store()

    def action_new(self) -> None:
        """Begin a new chat."""
        self.begin(None)

    def action_sessions(self) -> None:
        """Go to the list of chats."""
        if self.has_class("-narrow"):
            self.app.push_screen(SessionsScreen(self))
        else:
            self.own_list.listing.focus()

    def action_search(self) -> None:
        """Find chats by their words."""
        if self.has_class("-narrow"):
            self.app.push_screen(SessionsScreen(self, search=True))
        else:
            self.own_list.open_search()

    def action_rename(self) -> None:
        """Give the chat under the cursor another title."""
        self.listing.rename(self, self.own_list.listing.chosen)

    def action_delete(self) -> None:
        """Delete the chat under the cursor."""
        self.listing.delete(self.own_list.listing.chosen)

    def action_undo(self) -> None:
        """Bring the chat that was deleted last back."""
        self.listing.undo()

    def action_again(self) -> None:
        """Let the model answer again."""
        self.reader.again()

    def action_edit(self) -> None:
        """Change a question and send it as another branch."""
        self.reader.edit()

    def action_copy(self) -> None:
        """Copy the message."""
        self.reader.copy()

    def action_copy_code(self) -> None:
        """Copy a code block of the message."""
        self.reader.copy_code()

    def action_fold(self) -> None:
        """Show or hide the reasoning."""
        self.reader.fold()

    def action_branch(self, way: int) -> None:
        """Show another branch."""
        if (block := self.reader.block) is not None:
            self.reader.turn(block, way)

    def action_model(self) -> None:
        """Choose who answers next."""
        model_actions.ask(self, asking.choose_model(self))

    def action_settings(self) -> None:
        """Change how the chat is answered."""
        model_actions.ask(self, asking.change_settings(self))

    def action_export(self) -> None:
        """Write the chat to a file."""
        model_actions.ask(self, asking.export(self))

    def action_attach(self) -> None:
        """Attach a text file."""
        model_actions.ask(self, asking.attach(self))

    def action_pull(self) -> None:
        """Pull the model that is gone."""
        if name := self.talk.session.model:
            pull_actions.queue(self, self.context, [Pull(name)])

    def action_leave(self) -> None:
        """Stop the answer or a running task, else go back to the composer."""
        if self.talk.answer is not None:
            self.talk.answer.stop()
        elif not (self.focused is self.conversation and self.context.tasks.stop()):
            self.composer.focus()
