"""From the composer to the model: the question that is being written, and how it is sent."""

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
from mlxk_tui.ui.chat.attachments import MAX_FILES, AttachmentBar, mentioned, read_attachment
from mlxk_tui.ui.chat.composer import Composer
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.invitation import Opening
from mlxk_tui.ui.chat.transcript.stream_renderer import StreamRenderer
from mlxk_tui.ui.widgets.error_text import error_text


class ComposerDraft:
    """The question that is being written, the files that go with it, and those begun in other chats.

    Args:
        host: shows what is in the way.
        composer: the field.
        chips: shows the files.
        chat: returns the id of the open chat.
        changed: called when an edit begins or ends.
    """

    def __init__(
        self,
        host: ScreenHost,
        composer: Composer,
        chips: AttachmentBar,
        chat: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        self.attachments: list[Attachment] = []
        """What goes with the next question."""
        self.editing: Message | None = None
        """The question that another version is written of."""
        self._host = host
        self._composer = composer
        self._chips = chips
        self._chat = chat
        self._changed = changed
        self._recalled = -1
        self._drafts: dict[int, tuple[str, list[Attachment]]] = {}

    def question(self, text: str) -> PendingQuestion | None:
        """Return what is to be sent with a text; None where there is nothing."""
        if not (text.strip() or self.attachments):
            return None
        instead = self.editing.id if self.editing is not None else None
        return PendingQuestion(text, tuple(self.attachments), instead)

    def unsent(self) -> int:
        """Return how many questions were begun, here and in other chats, and not sent."""
        text, files = self._composer.text, self.attachments
        if (edited := self.editing) is not None and (text, files) == (
            edited.content,
            list(edited.attachments),
        ):
            text, files = "", []  # taken up again, and nothing was changed
        begun = [(text, files), *self._drafts.values()]
        return sum(bool(text.strip() or files) for text, files in begun)

    def leave(self) -> None:
        """Keep what is there for the chat that is left; an edit is given up."""
        if self.editing is None:
            self._drafts[self._chat()] = (self._composer.text, self.attachments)
        self.stop_editing()

    def resume(self) -> None:
        """Go on with what was begun in the chat that is open now."""
        text, files = self._drafts.pop(self._chat(), ("", []))
        self._composer.put(text)
        self.use(files)
        self._composer.focus()

    def clear(self) -> None:
        """Empty the composer."""
        self.stop_editing()
        self._composer.put("")
        self.use([])

    def use(self, items: list[Attachment]) -> None:
        """Let files go with the next question."""
        self.attachments = items
        self._chips.show(items)

    def add(self, item: Attachment) -> None:
        """Let one more file go with the next question."""
        if len(self.attachments) >= MAX_FILES:
            self._host.notify(f"At most {MAX_FILES} files go with a question.", severity="warning")
        elif item not in self.attachments:
            self.use([*self.attachments, item])

    async def read(self, paths: list[str]) -> None:
        """Attach files; what is no text is told."""
        for path in paths:
            try:
                item = await asyncio.to_thread(read_attachment, path)
            except OpError as error:  # noqa: PERF203 - one file must not hide the others
                self._host.tell_error(error)
            else:
                self.add(item)

    async def ask_for_file(self) -> None:
        """Ask for a text file and attach it. Run with `ScreenHost.ask`."""
        if (path := await dialog_flows.file_to_attach(self._host)) is not None:
            await self.read([path])

    def paste(self, text: str) -> None:
        """Attach a text that is too long for the composer."""
        self.add(Attachment(f"pasted-{len(self.attachments) + 1}.txt", text))

    def remove(self, index: int) -> None:
        """Take a file out; -1 is the last one."""
        index %= max(1, len(self.attachments))
        self.use([one for place, one in enumerate(self.attachments) if place != index])

    def recall(self, way: int, shown: list[Message]) -> None:
        """Take an earlier (-1) or later (1) question of the shown messages up again."""
        questions = questions_in(shown)
        place = self._recalled - way
        if place < 0:
            self.clear()
        elif place < len(questions):
            self.edit(questions[place], place)

    def edit(self, message: Message, place: int) -> None:
        """Put a question into the composer, to be sent as another version; `place` counts from the last."""
        self.editing, self._recalled = message, place
        self._composer.recalling = True
        self.use(list(message.attachments))
        self._composer.put(message.content)
        self._changed()

    def stop_editing(self) -> None:
        """Let what is written be a new question."""
        self.editing, self._recalled = None, -1
        self._composer.recalling = False
        self._changed()

    def focus(self) -> None:
        """Go to the field."""
        self._composer.focus()


class PromptSubmission:
    """Sends, one question at a time, and asks first where a model is too large or a file is named.

    Args:
        host: runs the work and asks.
        talk: the open chat.
        draft: what is being written; emptied once it is sent.
        renderer: shows the question and its answer.
        opening: returns how far the store is.
    """

    def __init__(
        self,
        host: ScreenHost,
        talk: ConversationController,
        draft: ComposerDraft,
        renderer: StreamRenderer,
        opening: Callable[[], Opening],
    ) -> None:
        self._host = host
        self._talk = talk
        self._draft = draft
        self._renderer = renderer
        self._opening = opening
        self._busy = False

    def why_not(self) -> str | None:
        """Return why nothing can be answered now, as a sentence; None where it can."""
        opening, library = self._opening(), self._talk.library
        if not opening.done:
            return "The chats are not open."
        if opening.no_mlx:
            return "mlx-lm is not installed here, so no model can run."
        if self._busy:
            return "The question is being sent."
        if self._talk.answer is not None:
            return "An answer is being written; esc stops it."
        name = self._talk.session.model
        if name is None:
            return "There is no model that can answer. F3 finds one."
        if models.is_missing(library, name):
            return error_text(missing_model_error(name))
        return models.disabled_reason(library, name)

    def submit(self, text: str) -> None:
        """Send what stands in the composer with its files, where there is anything."""
        if (question := self._draft.question(text)) is not None:
            self.send(question)

    def send(self, question: PendingQuestion, *, force: bool = False) -> None:
        """Send a question; where something is in the way it stays in the composer."""
        self._run(partial(self._send, question, force), lambda: self.send(question, force=True))

    def again(self, message: Message, *, force: bool = False) -> None:
        """Let an answer be written once more, or a question without one be answered."""
        self._run(partial(self._again, message, force), lambda: self.again(message, force=True))

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]], anyway: Callable[[], None]) -> None:
        if reason := self.why_not():
            self._host.notify(reason, severity="warning", timeout=6)
        else:
            self._busy = True
            self._host.start("send", partial(self._guarded, work, anyway))

    async def _guarded(
        self, work: Callable[[], Coroutine[Any, Any, None]], anyway: Callable[[], None]
    ) -> None:
        try:
            await work()
        except OpError as error:
            self._busy = False
            if error.type is ErrorType.INSUFFICIENT_MEMORY:
                self._host.ask(self._offer(error, anyway))
            else:
                self._host.tell_error(error)
        finally:
            self._busy = False

    async def _offer(self, error: OpError, anyway: Callable[[], None]) -> None:
        if await dialog_flows.offer_force(self._host, error):
            anyway()

    def offer_again(self, error: OpError, message: Message) -> None:
        """Ask whether a model that turned out to be too large is loaded all the same."""
        self._host.ask(self._offer(error, lambda: self.again(message, force=True)))

    async def _send(self, question: PendingQuestion, force: bool) -> None:
        talk = self._talk
        model, guessing = await talk.models(force=force)
        if paths := mentioned(question.text):
            await self._draft.read(paths)
            question = replace(question, attachments=tuple(self._draft.attachments))
        asked, answer = await talk.ask(question, model, guessing)
        self._draft.clear()
        if question.instead_of is not None:
            self._renderer.show(await talk.reload())
        else:
            self._renderer.append(asked, answer)
        self._busy = False
        self._renderer.begin(model)

    async def _again(self, message: Message, force: bool) -> None:
        talk = self._talk
        model, guessing = await talk.models(force=force)
        await talk.regenerate(message, model, guessing)
        self._renderer.show(await talk.reload(self._renderer.count))
        self._busy = False
        self._renderer.begin(model)
