"""Draws the open chat and its streaming answer, at a rate that leaves time for keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from textual.timer import Timer

from mlxk_tui.chats.model import Message
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.services.conversation.answer import Answer
from mlxk_tui.services.conversation.controller import WINDOW, ConversationController
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.transcript.view import ConversationView

_PAINT_SECONDS = 0.04
"""Interval at which a streaming answer is drawn: at most 25 times a second."""
_PAUSE_FACTOR = 12
"""The pause after a drawing, as a multiple of its duration; Textual's part takes twice as long again."""
_TYPING_SECONDS, _MAX_DELAY_SECONDS = 0.05, 0.15
"""How long a key delays a drawing, and how long all keys together may."""


class StreamRenderer:
    """Draws the messages of the open chat, and the new text of its answer.

    Args:
        host: owns the timer.
        controller: the open chat.
        view: shows the messages.
        is_visible: returns whether the view is on the screen.
        on_show: called when another chat or branch is shown.
        on_change: called when an answer starts or ends.
        on_draw: called when new text was drawn; with whether that text is below the visible part.
    """

    def __init__(
        self,
        host: ScreenHost,
        controller: ConversationController,
        view: ConversationView,
        *,
        is_visible: Callable[[], bool],
        on_show: Callable[[], None],
        on_change: Callable[[], None],
        on_draw: Callable[[bool], None],
    ) -> None:
        self.has_earlier = True
        """Whether there may be messages above the first one."""
        self.unseen_below = False
        """Whether there is new text below the visible part."""
        self.memory_tight = False
        """Whether the answering model barely fits into memory."""
        self._host = host
        self._controller = controller
        self._view = view
        self._is_visible = is_visible
        self._on_show = on_show
        self._on_change = on_change
        self._on_draw = on_draw
        self._timer: Timer | None = None
        self._next = self._typed_at = 0.0

    def start(self) -> None:
        """Create the timer; it runs only while there is an answer in progress."""
        self._timer = self._host.paused_timer(_PAINT_SECONDS, self.paint)

    @property
    def count(self) -> int:
        """Number of messages that are shown."""
        return len(self._view.blocks)

    def show(self, messages: list[Message], *, keep_position: bool = False) -> None:
        """Show the messages of a chat; `keep_position`: do not scroll to the end."""
        self.has_earlier = len(messages) >= WINDOW
        self.unseen_below = self.memory_tight = False
        answer = self._controller.answer
        if answer is None or not messages or messages[-1].id != answer.message.id:
            self._view.show(messages, keep_position=keep_position)
        else:
            # The stored text may be incomplete: all of the text comes from the answer itself.
            messages = [*messages[:-1], replace(messages[-1], content="", reasoning="")]
            self._view.show(messages, answer.progress(), keep_position=keep_position)
            self._view.feed(answer.message.id, *answer.all_text(), answer.progress())
        self._update_timer()
        self._on_show()

    def append(self, message: Message, answer: Answer) -> None:
        """Add a user message and its answer, which has started."""
        self._view.trim(WINDOW)
        self._view.append(message)
        self._view.append(answer.message, answer.progress())
        self._view.follow()

    def start_answer(self, model: RunnableModel) -> None:
        """Draw the answer of a model from now on."""
        self.memory_tight = model.fit is MemoryFit.TIGHT
        self._update_timer()
        self._on_change()

    def update(self, answer: Answer, *, ended: bool) -> None:
        """Draw an answer of the open chat that started or ended."""
        if ended:
            self.memory_tight = False
            self.draw(answer)
            self._view.finish(answer.message)
        self._update_timer()
        self._on_change()

    def _update_timer(self) -> None:
        if self._timer is not None and self._controller.answer is not None:
            self._timer.resume()
        elif self._timer is not None:
            self._timer.pause()

    def focus(self) -> None:
        """Focus the messages."""
        self._view.focus()

    def defer_for_typing(self) -> None:
        """Delay the next drawing: a key was typed."""
        self._typed_at = time.monotonic()

    def paint(self) -> None:
        """Draw the new text, if the view is visible and the pause is over."""
        answer = self._controller.answer
        now = time.monotonic()
        if answer is None:
            self._update_timer()
        elif self._is_visible() and now >= self._next:
            if now - self._typed_at < _TYPING_SECONDS and now < self._next + _MAX_DELAY_SECONDS:
                return
            self.draw(answer)
            self._next = now + _PAUSE_FACTOR * (time.monotonic() - now)

    def draw(self, answer: Answer) -> None:
        """Draw all new text of an answer."""
        content, reasoning = answer.new_text()
        self._view.feed(answer.message.id, content, reasoning, answer.progress())
        hidden = bool(content or reasoning) and not self._view.following and not self.unseen_below
        self.unseen_below = self.unseen_below or hidden
        self._on_draw(hidden)
