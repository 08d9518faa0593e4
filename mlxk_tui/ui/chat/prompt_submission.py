"""From the composer to the model: the draft of a message, and its submission."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from mlxk_tui.chats.model import Attachment, Message
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.controller import (
    ConversationController,
    PendingQuestion,
    missing_model_error,
    questions_in,
)
from mlxk_tui.ui.chat import dialog_flows
from mlxk_tui.ui.chat.attachments import MAX_FILES, AttachmentBar, mentioned_files, read_attachment
from mlxk_tui.ui.chat.composer import Composer
from mlxk_tui.ui.chat.empty_chat import StoreState
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.transcript.stream_renderer import StreamRenderer
from mlxk_tui.ui.widgets.error_text import error_text


class ComposerDraft:
    """The draft in the composer with its attachments, and the drafts of other chats.

    Args:
        host: shows errors.
        composer: holds the text.
        attachment_bar: shows the attachments.
        chat_id: returns the id of the open chat.
        on_change: called when an edit begins or ends.
    """

    def __init__(
        self,
        host: ScreenHost,
        composer: Composer,
        attachment_bar: AttachmentBar,
        chat_id: Callable[[], int],
        on_change: Callable[[], None],
    ) -> None:
        self.attachments: list[Attachment] = []
        """The files of the next message."""
        self.editing: Message | None = None
        """The message that is being edited."""
        self._host = host
        self._composer = composer
        self._attachment_bar = attachment_bar
        self._chat_id = chat_id
        self._on_change = on_change
        self._recalled = -1
        """Index of the recalled message from the last one; -1 for none."""
        self._drafts: dict[int, tuple[str, list[Attachment]]] = {}
        """Text and attachments of the drafts in other chats, by chat id."""

    def pending(self, text: str) -> PendingQuestion | None:
        """Return the message to send with a text; None if there is nothing to send."""
        if not (text.strip() or self.attachments):
            return None
        edited_id = self.editing.id if self.editing is not None else None
        return PendingQuestion(text, tuple(self.attachments), edited_id)

    def unsent(self) -> int:
        """Return the number of unsent drafts, in this chat and in others."""
        text, files = self._composer.text, self.attachments
        if (edited := self.editing) is not None and (text, files) == (
            edited.content,
            list(edited.attachments),
        ):
            text, files = "", []  # an edit without changes
        drafts = [(text, files), *self._drafts.values()]
        return sum(bool(text.strip() or files) for text, files in drafts)

    def stash(self) -> None:
        """Save the draft of the chat that is being closed; an edit is discarded."""
        if self.editing is None:
            self._drafts[self._chat_id()] = (self._composer.text, self.attachments)
        self.stop_editing()

    def restore(self) -> None:
        """Restore the draft of the open chat and focus the composer."""
        text, files = self._drafts.pop(self._chat_id(), ("", []))
        self._composer.set_text(text)
        self.set_attachments(files)
        self._composer.focus()

    def clear(self) -> None:
        self.stop_editing()
        self._composer.set_text("")
        self.set_attachments([])

    def set_attachments(self, items: list[Attachment]) -> None:
        self.attachments = items
        self._attachment_bar.show(items)

    def attach(self, item: Attachment) -> None:
        if len(self.attachments) >= MAX_FILES:
            self._host.notify(f"Limit: {MAX_FILES} files per message.", severity="warning")
        elif item not in self.attachments:
            self.set_attachments([*self.attachments, item])

    async def attach_files(self, paths: list[str]) -> None:
        """Read and attach text files; errors are shown."""
        for path in paths:
            try:
                item = await asyncio.to_thread(read_attachment, path)
            except OpError as error:  # noqa: PERF203 - one file must not stop the others
                self._host.notify_error(error)
            else:
                self.attach(item)

    async def ask_for_file(self) -> None:
        """Ask for a text file and attach it. Run it with `ScreenHost.run_dialog`."""
        if (path := await dialog_flows.file_to_attach(self._host)) is not None:
            await self.attach_files([path])

    def attach_paste(self, text: str) -> None:
        """Attach a pasted text that is too long for the composer."""
        self.attach(Attachment(f"pasted-{len(self.attachments) + 1}.txt", text))

    def remove(self, index: int) -> None:
        """Remove an attachment; -1 is the last one."""
        index %= max(1, len(self.attachments))
        self.set_attachments([item for number, item in enumerate(self.attachments) if number != index])

    def recall(self, direction: int, shown: list[Message]) -> None:
        """Edit an earlier (-1) or later (1) user message of the shown ones."""
        user_messages = questions_in(shown)
        index = self._recalled - direction
        if index < 0:
            self.clear()
        elif index < len(user_messages):
            self.edit(user_messages[index], index)

    def edit(self, message: Message, index: int) -> None:
        """Edit a user message, to send it as a new branch; `index` counts from the last one."""
        self.editing, self._recalled = message, index
        self._composer.recalling = True
        self.set_attachments(list(message.attachments))
        self._composer.set_text(message.content)
        self._on_change()

    def stop_editing(self) -> None:
        """End the edit: the text becomes a new message."""
        self.editing, self._recalled = None, -1
        self._composer.recalling = False
        self._on_change()

    def focus(self) -> None:
        self._composer.focus()


class PromptSubmission:
    """Sends one message at a time; asks first if the model is too large for the memory.

    Args:
        host: runs workers and dialogs.
        controller: the open chat.
        draft: the draft, which is cleared once it is sent.
        renderer: shows the message and its answer.
        store_state: returns the state of the chats' store.
    """

    def __init__(
        self,
        host: ScreenHost,
        controller: ConversationController,
        draft: ComposerDraft,
        renderer: StreamRenderer,
        store_state: Callable[[], StoreState],
    ) -> None:
        self._host = host
        self._controller = controller
        self._draft = draft
        self._renderer = renderer
        self._store_state = store_state
        self._busy = False

    def disabled_reason(self) -> str | None:
        """Return why nothing can be sent now, as a sentence; None if it can."""
        store_state, library = self._store_state(), self._controller.library
        if not store_state.done:
            return "The chats are not open yet."
        if store_state.no_mlx:
            return "mlx-lm is not installed, so no model can run."
        if self._busy:
            return "Already sending a message."
        if self._controller.answer is not None:
            return "An answer is in progress. Press esc to stop it."
        name = self._controller.session.model
        if name is None:
            return "No chat model installed. Press F3 to find one."
        if models.is_missing(library, name):
            return error_text(missing_model_error(name))
        return models.disabled_reason(library, name)

    def submit(self, text: str) -> None:
        """Send the text of the composer with its attachments, if there is anything to send."""
        if (pending := self._draft.pending(text)) is not None:
            self.send(pending)

    def send(self, pending: PendingQuestion, *, force: bool = False) -> None:
        """Send a message; if that fails it stays in the composer."""
        self._run(partial(self._send, pending, force), lambda: self.send(pending, force=True))

    def regenerate(self, message: Message, *, force: bool = False) -> None:
        """Generate an answer again as a new branch, or answer a user message that has no answer."""
        self._run(partial(self._regenerate, message, force), lambda: self.regenerate(message, force=True))

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]], retry: Callable[[], None]) -> None:
        """Run `work`; `retry` runs it again with `force`, once the user confirmed that."""
        if reason := self.disabled_reason():
            self._host.notify(reason, severity="warning", timeout=6)
        else:
            self._busy = True
            self._host.start("send", partial(self._run_guarded, work, retry))

    async def _run_guarded(
        self, work: Callable[[], Coroutine[Any, Any, None]], retry: Callable[[], None]
    ) -> None:
        try:
            await work()
        except OpError as error:
            self._busy = False
            if error.type is ErrorType.INSUFFICIENT_MEMORY:
                self._host.run_dialog(self._offer_force(error, retry))
            else:
                self._host.notify_error(error)
        finally:
            self._busy = False

    async def _offer_force(self, error: OpError, retry: Callable[[], None]) -> None:
        if await dialog_flows.offer_force(self._host, error):
            retry()

    def offer_forced_retry(self, error: OpError, message: Message) -> None:
        """Ask whether to load a model anyway that turned out to be too large while it was loaded."""
        self._host.run_dialog(self._offer_force(error, lambda: self.regenerate(message, force=True)))

    async def _send(self, pending: PendingQuestion, force: bool) -> None:
        controller = self._controller
        model, draft_model = await controller.models(force=force)
        if paths := mentioned_files(pending.text):
            await self._draft.attach_files(paths)
            pending = replace(pending, attachments=tuple(self._draft.attachments))
        message, answer = await controller.ask(pending, model, draft_model)
        self._draft.clear()
        if pending.instead_of is not None:
            self._renderer.show(await controller.reload())
        else:
            self._renderer.append(message, answer)
        self._busy = False
        self._renderer.start_answer(model)

    async def _regenerate(self, message: Message, force: bool) -> None:
        controller = self._controller
        model, draft_model = await controller.models(force=force)
        await controller.regenerate(message, model, draft_model)
        self._renderer.show(await controller.reload(self._renderer.count))
        self._busy = False
        self._renderer.start_answer(model)
