"""Sending a question and answering again, with what is asked before: memory, and files that are named."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mlxk_tui.chats.model import Message
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.services.conversation import models
from mlxk_tui.services.conversation.controller import WINDOW, PendingQuestion, gone
from mlxk_tui.ui.chat import dialog_flows as asking
from mlxk_tui.ui.chat.attachments import mentioned
from mlxk_tui.ui.chat.status_lines import model_gone
from mlxk_tui.ui.inspector import model_actions
from mlxk_tui.ui.widgets.error_text import error_text

if TYPE_CHECKING:
    from mlxk_tui.ui.chat.pane import ChatPane


class PromptSubmission:
    """Sends, one question at a time.

    Args:
        pane: the pane.
    """

    def __init__(self, pane: ChatPane) -> None:
        self._pane = pane
        self._busy = False

    def why_not(self) -> str | None:
        """Return why nothing can be answered now, as a sentence; None where it can."""
        pane = self._pane
        talk, library = pane.talk, pane.context.library
        if not pane.opening.done:
            return "The chats are not open."
        if pane.opening.no_mlx:
            return "mlx-lm is not installed here, so no model can run."
        if self._busy:
            return "The question is being sent."
        if talk.answer is not None:
            return "An answer is being written; esc stops it."
        name = talk.session.model
        if name is None:
            return "There is no model that can answer. F3 finds one."
        if model_gone(library, name):
            return error_text(gone(name))
        return models.why_not(library, name)

    def send(self, question: PendingQuestion, *, force: bool = False) -> None:
        """Send a question; where something is in the way it stays in the composer."""
        if reason := self.why_not():
            self._pane.notify(reason, severity="warning", markup=False, timeout=6)
        else:
            self._run(partial(self._send, question, force), lambda: self.send(question, force=True))

    def again(self, message: Message, *, force: bool = False) -> None:
        """Let an answer be written once more, or a question without one be answered."""
        if reason := self.why_not():
            self._pane.notify(reason, severity="warning", markup=False, timeout=6)
        else:
            self._run(partial(self._again, message, force), lambda: self.again(message, force=True))

    def _run(self, work: Callable[[], Coroutine[Any, Any, None]], anyway: Callable[[], None]) -> None:
        self._busy = True
        self._pane.start("send", partial(self._guarded, work, anyway))

    async def _guarded(
        self, work: Callable[[], Coroutine[Any, Any, None]], anyway: Callable[[], None]
    ) -> None:
        try:
            await work()
        except OpError as error:
            self._busy = False
            if error.type is ErrorType.INSUFFICIENT_MEMORY:
                model_actions.ask(self._pane, self._offer(error, anyway))
            else:
                model_actions.tell_error(self._pane, error)
        finally:
            self._busy = False

    async def _offer(self, error: OpError, anyway: Callable[[], None]) -> None:
        if await asking.offer_force(self._pane, error):
            anyway()

    def offer_again(self, error: OpError, message: Message) -> None:
        """Ask whether a model that turned out to be too large is loaded all the same."""
        model_actions.ask(self._pane, self._offer(error, lambda: self.again(message, force=True)))

    async def _send(self, question: PendingQuestion, force: bool) -> None:
        pane = self._pane
        model, draft = await pane.talk.models(force=force)
        if paths := mentioned(question.text):
            await asking.add_files(pane, paths)
            question = replace(question, attachments=tuple(pane.writer.attachments))
        asked, answer = await pane.talk.ask(question, model, draft)
        pane.writer.clear()
        if question.instead_of is not None:
            pane.show(await pane.talk.reload())
        else:
            pane.conversation.keep_last(WINDOW)
            pane.conversation.append(asked)
            pane.conversation.append(answer.message, answer.live())
            pane.conversation.follow()
        self._began(model)

    async def _again(self, message: Message, force: bool) -> None:
        pane = self._pane
        model, draft = await pane.talk.models(force=force)
        await pane.talk.again(message, model, draft)
        pane.show(await pane.talk.reload(len(pane.conversation.blocks)))
        self._began(model)

    def _began(self, model: Runnable) -> None:
        self._busy = False
        self._pane.answer_began(model)
