"""The Chat pane: the saved chats, the open chat, and the composer."""

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
from mlxk_tui.ui.chat.bar import ChatBar, NoteConditions, bar_state, current_note
from mlxk_tui.ui.chat.composer import Composer
from mlxk_tui.ui.chat.empty_chat import EmptyChat, StoreState, show_empty_chat
from mlxk_tui.ui.chat.host import ScreenHost
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

_ON_MESSAGE = {"copy", "copy_code", "fold", "regenerate", "edit", "branch"}
"""Actions on the message under the cursor."""


class ChatPane(Pane):
    """The list of chats, the open chat, and the composer."""

    pane_id = "chat"
    AUTO_FOCUS = "#composer"
    BINDING_GROUP_TITLE = "Chat"
    BINDINGS: ClassVar[list[BindingType]] = keys.PANE

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.conversation = ConversationView(id="conversation")
        self.composer = Composer(id="composer")
        self.session_panel = SessionsPanel(now=context.library.now, id="chats")
        self.note = Static(id="chat-note", markup=False)
        self._empty_chat = EmptyChat(id="chat-invite")
        self._bar = ChatBar(id="chat-bar")
        self._attachment_bar = AttachmentBar(id="chat-files")
        prompt = Static("❯", id="chat-prompt", markup=False)
        self._panel = Vertical(
            self.conversation,
            self._empty_chat,
            self.note,
            self._bar,
            self._attachment_bar,
            Horizontal(prompt, self.composer, id="chat-line"),
            id="chat-panel",
        )
        runtime = context.runtime
        no_mlx = runtime.mlx_lm is None if runtime else importlib.util.find_spec("mlx_lm") is None
        self.controller = controller = ConversationController(context.chats, context.library)
        self._host = host = ScreenHost(self)
        self.renderer = StreamRenderer(
            host,
            controller,
            self.conversation,
            is_visible=lambda: self.app.current_mode == self.pane_id,
            on_show=self._draw_chat,
            on_change=self.draw_state,
            on_draw=self._draw_progress,
        )
        self.draft = ComposerDraft(
            host, self.composer, self._attachment_bar, lambda: controller.session.id, self.draw_note
        )
        self.sessions = SessionActions(
            host, controller, self.draft, self.renderer, self.session_panel, self.draw_state, no_mlx=no_mlx
        )
        self.submission = PromptSubmission(
            host, controller, self.draft, self.renderer, lambda: self.store_state
        )
        self.messages = MessageActions(
            host, controller, self.conversation, self.renderer, self.draft, self.submission
        )

    def body(self) -> Iterable[Widget]:
        yield Horizontal(self.session_panel, self._panel, id="chat-body")

    def on_mount(self) -> None:
        self.subscribe(self.context.chats.answers_changed, self._answer_changed)
        self.subscribe(self.context.chats.write_error_changed, lambda _: self.draw_note())
        self.context.chats.unsent = self.draft.unsent
        self.renderer.start()
        self.sessions.open_store()

    @property
    def store_state(self) -> StoreState:
        return self.sessions.store_state

    # -- drawing -----------------------------------------------------------------------------------

    def draw_library(self, change: Changed) -> None:
        """Draw what depends on the installed models."""
        del change
        if self.store_state.done:
            self.controller.choose_default_model()
        self.draw_state()

    def draw_state(self) -> None:
        """Draw everything but the messages."""
        title = printable(self.controller.session.title) or (UNTITLED if self.store_state.done else "Chat")
        self._panel.border_title = Content(title)
        self._draw_bar()
        empty = not self.conversation.blocks
        self._panel.set_class(empty, "-empty")
        if empty:
            prompts = show_empty_chat(self._empty_chat.view, self.store_state, self.controller)
            self._host.start("suggest", partial(self._empty_chat.suggest, prompts), exclusive=True)
        self.draw_note()
        self.update_keys()

    def _draw_chat(self) -> None:
        self.sessions.mark_open()
        self.draw_state()

    def _draw_bar(self) -> None:
        last = self.conversation.last(Role.ASSISTANT)
        self._bar.show(bar_state(self.controller, last.message if last is not None else None))

    def _draw_progress(self, hidden: bool) -> None:
        """Draw the bar after the answer grew, and the note if the new text is not visible."""
        if hidden:
            self.draw_note()
        self._draw_bar()

    def draw_note(self) -> None:
        """Draw the note above the composer, or hide it."""
        store, name = self.context.chats.opened, self.controller.session.model
        text, style = current_note(
            NoteConditions(
                write_error=store.write_error if store is not None else None,
                missing_model=name if models.is_missing(self.context.library, name) else None,
                editing=self.draft.editing is not None,
                unseen_below=self.renderer.unseen_below,
                memory_tight=self.renderer.memory_tight,
            )
        )
        self.note.display = bool(text)
        self.note.update(Content.styled(text, style))

    # -- the answer in progress --------------------------------------------------------------------

    def on_screen_resume(self) -> None:
        """Draw the text that was generated while another pane was open."""
        super().on_screen_resume()
        self.renderer.paint()

    def _answer_changed(self, answer: Answer) -> None:
        """Draw an answer that started or ended."""
        ended = answer.session.id not in self.context.chats.answers
        if answer.session.id == self.controller.session.id:
            self.renderer.update(answer, ended=ended)
        self.sessions.update(answer.session.id)
        self.draw_shell()
        if ended:
            self._notify_end(answer)

    def _notify_end(self, answer: Answer) -> None:
        if answer.store_error is not None:
            self._host.notify_error(answer.store_error)
        here = self.app.current_mode == self.pane_id and answer.session.id == self.controller.session.id
        error = answer.error
        if here and error is not None and error.type is ErrorType.INSUFFICIENT_MEMORY:
            self.submission.offer_forced_retry(error, answer.message)
        elif not here and answer.message.state is not MessageState.STOPPED:
            text = error_text(error) if error else "Answer ready."
            title = printable(answer.session.title) or UNTITLED
            self.notify(text, title=title, severity="error" if error else "information", markup=False)

    # -- the composer ------------------------------------------------------------------------------

    def on_composer_sent(self, event: Composer.Sent) -> None:
        self.submission.submit(event.text)

    def on_text_area_changed(self) -> None:
        """Delay the drawing of the answer: keys come first."""
        self.renderer.defer_for_typing()

    def on_empty_chat_suggested(self, event: EmptyChat.Suggested) -> None:
        self.composer.focus()
        self.submission.send(PendingQuestion(event.prompt))

    def on_attachment_bar_removed(self, event: AttachmentBar.Removed) -> None:
        self.draft.remove(event.index)

    def on_composer_empty_backspace(self) -> None:
        """Remove the last attachment."""
        self.draft.remove(-1)

    def on_composer_files_pasted(self, event: Composer.FilesPasted) -> None:
        self._host.start("attach", partial(self.draft.attach_files, event.paths))

    def on_composer_long_text_pasted(self, event: Composer.LongTextPasted) -> None:
        self.draft.attach_paste(event.text)

    def on_composer_recall(self, event: Composer.Recall) -> None:
        self.draft.recall(event.direction, self.conversation.messages)

    def on_composer_escaped(self) -> None:
        """Stop the answer, else cancel the edit, else focus the messages."""
        if self.controller.answer is not None:
            self.controller.answer.stop()
        elif self.draft.editing is not None:
            self.draft.clear()
        else:
            self.conversation.focus()

    # -- messages of the widgets -------------------------------------------------------------------

    def on_sessions_panel_searched(self, event: SessionsPanel.Searched) -> None:
        self.sessions.search(event.query)

    def on_session_list_more_requested(self) -> None:
        self.sessions.load_more()

    def on_row_list_selected(self, event: RowList.Selected) -> None:
        event.stop()
        self.sessions.open(int(event.key))

    def on_conversation_view_more_requested(self) -> None:
        self.messages.load_earlier()

    def on_conversation_view_follow_changed(self, event: ConversationView.FollowChanged) -> None:
        """Hide the note about new text once it is visible."""
        if event.following and self.renderer.unseen_below:
            self.renderer.unseen_below = False
            self.draw_note()

    def on_conversation_view_cursor_moved(self) -> None:
        self.update_keys()

    def on_conversation_view_clicked(self, event: ConversationView.Clicked) -> None:
        self.messages.run_link(event.link)

    def on_chat_bar_clicked(self, event: ChatBar.Clicked) -> None:
        if event.part == "model":
            self.action_model()
        else:
            self.action_settings()

    # -- actions -----------------------------------------------------------------------------------

    def disabled_reason(self, action: str) -> str | None:
        if action in {"new", "search", "undo", "settings", "attach"} and not self.store_state.done:
            return "The chats are not open yet."
        if action == "retry_store" and self.store_state.problem is None:
            return "The chats are already open." if self.store_state.done else "The chats are being opened."
        if action == "export" and not self.controller.saved:
            return "Nothing to export yet."
        if action == "model" and not models.chat_models(self.context.library):
            return "None of the installed models can chat."
        if action == "pull" and not models.is_missing(self.context.library, self.controller.session.model):
            return "This model is installed."
        if action in _ON_MESSAGE:
            reason = self.messages.disabled_reason(action)
            return reason or (self.submission.disabled_reason() if action == "regenerate" else None)
        return None

    def action_write(self) -> None:
        self.composer.focus()

    def action_retry_store(self) -> None:
        self.sessions.open_store()

    def action_new(self) -> None:
        self.sessions.start_chat(None)

    def action_sessions(self) -> None:
        if self.has_class("-narrow"):
            self._open_list_screen()
        else:
            self.session_panel.listing.focus()

    def action_search(self) -> None:
        if self.has_class("-narrow"):
            self._open_list_screen(search=True)
        else:
            self.session_panel.open_search()

    def _open_list_screen(self, *, search: bool = False) -> None:
        self.app.push_screen(
            SessionsScreen(
                self.sessions,
                now=self.context.library.now,
                open_chat=partial(self.call_later, self.sessions.open),
                new_chat=partial(self.call_later, self.action_new),
                search=search,
            )
        )

    def action_rename(self) -> None:
        self.sessions.rename(self.session_panel.listing.selected)

    def action_delete(self) -> None:
        self.sessions.delete(self.session_panel.listing.selected)

    def action_undo(self) -> None:
        self.sessions.undo()

    def action_regenerate(self) -> None:
        self.messages.regenerate()

    def action_edit(self) -> None:
        self.messages.edit()

    def action_copy(self) -> None:
        self.messages.copy()

    def action_copy_code(self) -> None:
        self.messages.copy_code()

    def action_fold(self) -> None:
        self.messages.fold()

    def action_branch(self, direction: int) -> None:
        if (block := self.messages.block) is not None:
            self.messages.switch_branch(block, direction)

    def action_model(self) -> None:
        self._host.run_dialog(dialog_flows.choose_model(self._host, self.controller, self.draw_state))

    def action_settings(self) -> None:
        self._host.run_dialog(dialog_flows.change_settings(self._host, self.controller, self.draw_state))

    def action_export(self) -> None:
        self._host.run_dialog(dialog_flows.export(self._host, self.controller))

    def action_attach(self) -> None:
        self._host.run_dialog(self.draft.ask_for_file())

    def action_pull(self) -> None:
        if name := self.controller.session.model:
            pull_actions.enqueue(self, self.context, [Pull(name)])

    def action_leave(self) -> None:
        """Stop the answer or the latest task, else focus the composer."""
        if self.controller.answer is not None:
            self.controller.answer.stop()
        elif not (self.focused is self.conversation and self.stop_task()):
            self.composer.focus()
