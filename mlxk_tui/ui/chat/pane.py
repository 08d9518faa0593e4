"""The Chat pane: the kept chats, the open conversation, and the composer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from mlxk_tui.chats.model import MessageState, Role
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.ops.core.text import printable
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.answer import Answer
from mlxk_tui.services.conversation.controller import ConversationController, PendingQuestion
from mlxk_tui.services.library import Changed
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.ui.chat import dialog_flows, keys
from mlxk_tui.ui.chat.attachments import AttachmentBar
from mlxk_tui.ui.chat.bar import ChatBar, Notes, bar_state, note
from mlxk_tui.ui.chat.composer import Composer
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.invitation import ChatInvite, Opening, invite
from mlxk_tui.ui.chat.message_actions import MessageActions
from mlxk_tui.ui.chat.prompt_submission import ComposerDraft, PromptSubmission
from mlxk_tui.ui.chat.session_actions import SessionActions
from mlxk_tui.ui.chat.session_list import UNTITLED, SessionsPanel
from mlxk_tui.ui.chat.sessions_screen import SessionsScreen
from mlxk_tui.ui.chat.transcript.stream_renderer import StreamRenderer
from mlxk_tui.ui.chat.transcript.view import ConversationView
from mlxk_tui.ui.inspector import pull_actions
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

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.conversation = ConversationView(id="conversation")
        self.composer = Composer(id="composer")
        self.own_list = SessionsPanel(now=context.library.now, id="chats")
        self.note = Static(id="chat-note", markup=False)
        self._invite = ChatInvite(id="chat-invite")
        self._bar = ChatBar(id="chat-bar")
        self._chips = AttachmentBar(id="chat-files")
        prompt = Static("❯", id="chat-prompt", markup=False)
        self._panel = Vertical(
            self.conversation,
            self._invite,
            self.note,
            self._bar,
            self._chips,
            Horizontal(prompt, self.composer, id="chat-line"),
            id="chat-panel",
        )
        runtime = context.runtime
        no_mlx = runtime.mlx_lm is None if runtime else importlib.util.find_spec("mlx_lm") is None
        self.talk = talk = ConversationController(context.chats, context.library)
        self._host = host = ScreenHost(self)
        self.renderer = StreamRenderer(
            host,
            talk,
            self.conversation,
            seen=lambda: self.app.current_mode == self.pane_id,
            shown=self._draw_chat,
            changed=self.draw_state,
            grown=self._draw_grown,
        )
        self.draft = ComposerDraft(host, self.composer, self._chips, lambda: talk.session.id, self.draw_note)
        self.sessions = SessionActions(
            host, talk, self.draft, self.renderer, self.own_list, self.draw_state, no_mlx=no_mlx
        )
        self.submission = PromptSubmission(host, talk, self.draft, self.renderer, lambda: self.opening)
        self.messages = MessageActions(
            host, talk, self.conversation, self.renderer, self.draft, self.submission
        )

    def body(self) -> Iterable[Widget]:
        """Lay out the pane."""
        yield Horizontal(self.own_list, self._panel, id="chat-body")

    def on_mount(self) -> None:
        """Open the chats."""
        self.subscribe(self.context.chats.answers_changed, self._answer_changed)
        self.subscribe(self.context.chats.write_error_changed, lambda _: self.draw_note())
        self.context.chats.unsent = self.draft.unsent
        self.renderer.mount()
        self.sessions.open_store()

    @property
    def opening(self) -> Opening:
        """How far the store is."""
        return self.sessions.opening

    # -- drawing -----------------------------------------------------------------------------------

    def draw_library(self, change: Changed) -> None:
        """Draw what depends on which models there are."""
        del change
        if self.opening.done:
            self.talk.choose_default_model()
        self.draw_state()

    def draw_state(self) -> None:
        """Draw everything but the messages."""
        title = printable(self.talk.session.title) or (UNTITLED if self.opening.done else "Chat")
        self._panel.border_title = Content(title)
        self._draw_bar()
        empty = not self.conversation.blocks
        self._panel.set_class(empty, "-empty")
        if empty:
            questions = invite(self._invite.view, self.opening, self.talk)
            self._host.start("suggest", partial(self._invite.suggest, questions), alone=True)
        self.draw_note()
        self.update_keys()

    def _draw_chat(self) -> None:
        self.sessions.point()
        self.draw_state()

    def _draw_bar(self) -> None:
        last = self.conversation.last(Role.ASSISTANT)
        self._bar.show(bar_state(self.talk, last.message if last is not None else None))

    def _draw_grown(self, hidden: bool) -> None:
        """Draw what stands around an answer that has been drawn."""
        if hidden:
            self.draw_note()
        self._draw_bar()

    def draw_note(self) -> None:
        """Draw the line above the composer, where there is something to say."""
        store, name = self.context.chats.opened, self.talk.session.model
        text, style = note(
            Notes(
                write_error=store.write_error if store is not None else None,
                gone=name if models.is_missing(self.context.library, name) else None,
                editing=self.draft.editing is not None,
                below=self.renderer.below,
                tight=self.renderer.tight,
            )
        )
        self.note.display = bool(text)
        self.note.update(Content.styled(text, style))

    # -- the answer that is being written ----------------------------------------------------------

    def on_screen_resume(self) -> None:
        """Catch up with what was written meanwhile."""
        super().on_screen_resume()
        self.renderer.paint()

    def _answer_changed(self, answer: Answer) -> None:
        """Draw that an answer began or ended."""
        ended = answer.session.id not in self.context.chats.answers
        if answer.session.id == self.talk.session.id:
            self.renderer.update(answer, ended=ended)
        self.sessions.update(answer.session.id)
        self.draw_shell()
        if ended:
            self._tell_end(answer)

    def _tell_end(self, answer: Answer) -> None:
        if answer.store_error is not None:
            self._host.tell_error(answer.store_error)
        here = self.app.current_mode == self.pane_id and answer.session.id == self.talk.session.id
        error = answer.error
        if here and error is not None and error.type is ErrorType.INSUFFICIENT_MEMORY:
            self.submission.offer_again(error, answer.message)
        elif not here and answer.message.state is not MessageState.STOPPED:
            said = error_text(error) if error else "The answer is there."
            title = printable(answer.session.title) or UNTITLED
            self.notify(said, title=title, severity="error" if error else "information", markup=False)

    # -- the composer ------------------------------------------------------------------------------

    def on_composer_sent(self, event: Composer.Sent) -> None:
        """Send the question."""
        self.submission.submit(event.text)

    def on_text_area_changed(self) -> None:
        """Let keys come before the answer."""
        self.renderer.typed()

    def on_chat_invite_asked(self, event: ChatInvite.Asked) -> None:
        """Send a suggested question."""
        self.composer.focus()
        self.submission.send(PendingQuestion(event.question))

    def on_attachment_bar_removed(self, event: AttachmentBar.Removed) -> None:
        """Take a file out."""
        self.draft.remove(event.index)

    def on_composer_erased(self) -> None:
        """Take the last file out."""
        self.draft.remove(-1)

    def on_composer_attach(self, event: Composer.Attach) -> None:
        """Attach what was dragged in."""
        self._host.start("attach", partial(self.draft.read, event.paths))

    def on_composer_pasted(self, event: Composer.Pasted) -> None:
        """Attach a long paste."""
        self.draft.paste(event.text)

    def on_composer_recall(self, event: Composer.Recall) -> None:
        """Take an earlier or later question up again."""
        self.draft.recall(event.way, self.conversation.messages)

    def on_composer_left(self) -> None:
        """Stop the answer, leave an edit, or go to the messages: the first that there is."""
        if self.talk.answer is not None:
            self.talk.answer.stop()
        elif self.draft.editing is not None:
            self.draft.clear()
        else:
            self.conversation.focus()

    # -- what the widgets tell ---------------------------------------------------------------------

    def on_sessions_panel_searched(self, event: SessionsPanel.Searched) -> None:
        """Look for words."""
        self.sessions.search(event.query)

    def on_session_list_wants_more(self) -> None:
        """Read older chats."""
        self.sessions.read_more()

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Open the chat."""
        event.stop()
        self.sessions.open(int(event.key))

    def on_conversation_view_wants_more(self) -> None:
        """Read earlier messages."""
        self.messages.read_more()

    def on_conversation_view_followed(self, event: ConversationView.Followed) -> None:
        """Forget the hint once the end is in sight."""
        if event.following and self.renderer.below:
            self.renderer.below = False
            self.draw_note()

    def on_conversation_view_moved(self) -> None:
        """Know which keys work for the message under the cursor."""
        self.update_keys()

    def on_conversation_view_clicked(self, event: ConversationView.Clicked) -> None:
        """Do what was clicked on inside a message."""
        self.messages.clicked(event.what)

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
        if action == "model" and not models.chat_models(self.context.library):
            return "No model of the cache can answer here."
        if action == "pull" and not models.is_missing(self.context.library, self.talk.session.model):
            return "The model of this chat is there."
        if action in _OF_MESSAGE:
            reason = self.messages.why_not(action)
            return reason or (self.submission.why_not() if action == "again" else None)
        return None

    def action_write(self) -> None:
        """Go to the composer."""
        self.composer.focus()

    def action_retry_store(self) -> None:
        """Try again to open the chats."""
        self.sessions.open_store()

    def action_new(self) -> None:
        """Begin a new chat."""
        self.sessions.begin(None)

    def action_sessions(self) -> None:
        """Go to the list of chats."""
        if self.has_class("-narrow"):
            self._list_chats()
        else:
            self.own_list.listing.focus()

    def action_search(self) -> None:
        """Find chats by their words."""
        if self.has_class("-narrow"):
            self._list_chats(search=True)
        else:
            self.own_list.open_search()

    def _list_chats(self, *, search: bool = False) -> None:
        """Show the list as a screen of its own."""
        self.app.push_screen(
            SessionsScreen(
                self.sessions,
                now=self.context.library.now,
                choose=partial(self.call_later, self.sessions.open),
                begin=partial(self.call_later, self.action_new),
                search=search,
            )
        )

    def action_rename(self) -> None:
        """Give the chat under the cursor another title."""
        self.sessions.rename(self.own_list.listing.chosen)

    def action_delete(self) -> None:
        """Delete the chat under the cursor."""
        self.sessions.delete(self.own_list.listing.chosen)

    def action_undo(self) -> None:
        """Bring the chat that was deleted last back."""
        self.sessions.undo()

    def action_again(self) -> None:
        """Let the model answer again."""
        self.messages.again()

    def action_edit(self) -> None:
        """Change a question and send it as another branch."""
        self.messages.edit()

    def action_copy(self) -> None:
        """Copy the message."""
        self.messages.copy()

    def action_copy_code(self) -> None:
        """Copy a code block of the message."""
        self.messages.copy_code()

    def action_fold(self) -> None:
        """Show or hide the reasoning."""
        self.messages.fold()

    def action_branch(self, way: int) -> None:
        """Show another branch."""
        if (block := self.messages.block) is not None:
            self.messages.turn(block, way)

    def action_model(self) -> None:
        """Choose who answers next."""
        self._host.ask(dialog_flows.choose_model(self._host, self.talk, self.draw_state))

    def action_settings(self) -> None:
        """Change how the chat is answered."""
        self._host.ask(dialog_flows.change_settings(self._host, self.talk, self.draw_state))

    def action_export(self) -> None:
        """Write the chat to a file."""
        self._host.ask(dialog_flows.export(self._host, self.talk))

    def action_attach(self) -> None:
        """Attach a text file."""
        self._host.ask(self.draft.ask_for_file())

    def action_pull(self) -> None:
        """Pull the model that is gone."""
        if name := self.talk.session.model:
            pull_actions.queue(self, self.context, [Pull(name)])

    def action_leave(self) -> None:
        """Stop the answer or a running task, else go back to the composer."""
        if self.talk.answer is not None:
            self.talk.answer.stop()
        elif not (self.focused is self.conversation and self.stop_task()):
            self.composer.focus()
