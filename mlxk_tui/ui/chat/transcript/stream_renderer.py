"""Draws the open chat, and its answer as it is written: often enough to flow, but keys come first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from textual.timer import Timer

from mlxk_tui.chats.model import Message
from mlxk_tui.engine.models import Runnable
from mlxk_tui.ops.contract.terms import MemoryFit
from mlxk_tui.services.conversation.answer import Answer
from mlxk_tui.services.conversation.controller import WINDOW, ConversationController
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.transcript.view import ConversationView

_PAINT_SECONDS = 0.04
"""How often an answer that is being written is drawn: 25 times a second at most."""
_SHARE = 12
"""How many times as long as it took to draw nothing is drawn; Textual's part takes twice as long again."""
_TYPING_SECONDS, _AT_LEAST_SECONDS = 0.05, 0.15
"""For how long a key puts a drawing off, and for how long all keys together may."""


class StreamRenderer:
    """Draws the open chat's messages, and what its answer has got since the last time.

    Args:
        host: owns the timer.
        talk: the open chat.
        view: what is drawn into.
        seen: tells whether the view is on the screen.
        shown: called when other messages are shown.
        changed: called when an answer to these messages begins or ends.
        grown: called when an answer has been drawn; with whether new text came below the screen.
    """

    def __init__(
        self,
        host: ScreenHost,
        talk: ConversationController,
        view: ConversationView,
        *,
        seen: Callable[[], bool],
        shown: Callable[[], None],
        changed: Callable[[], None],
        grown: Callable[[bool], None],
    ) -> None:
        self.more = True
        """Whether there may be messages above the first one."""
        self.below = False
        """Whether there is new text that the reader has not seen."""
        self.tight = False
        """Whether the model that answers fits the memory only just."""
        self._host = host
        self._talk = talk
        self._view = view
        self._seen = seen
        self._shown = shown
        self._changed = changed
        self._grown = grown
        self._timer: Timer | None = None
        self._next = self._typed_at = 0.0

    def mount(self) -> None:
        """Begin; nothing happens before there is an answer to `follow`."""
        self._timer = self._host.every(_PAINT_SECONDS, self.paint)

    @property
    def count(self) -> int:
        """Messages that are shown."""
        return len(self._view.blocks)

    def show(self, found: list[Message], *, keep: bool = False) -> None:
        """Draw a conversation; `keep` leaves the place on the screen as it is."""
        self.more = len(found) >= WINDOW
        self.below = self.tight = False
        answer = self._talk.answer
        if answer is None or not found or found[-1].id != answer.message.id:
            self._view.show(found, keep=keep)
        else:
            # What is stored may be behind: all of the text comes from the answer itself.
            found = [*found[:-1], replace(found[-1], content="", reasoning="")]
            self._view.show(found, answer.progress(), keep=keep)
            self._view.feed(answer.message.id, *answer.all_text(), answer.progress())
        self.follow()
        self._shown()

    def append(self, asked: Message, answer: Answer) -> None:
        """Draw a question and the answer that begins, below what is shown."""
        self._view.keep_last(WINDOW)
        self._view.append(asked)
        self._view.append(answer.message, answer.progress())
        self._view.follow()

    def begin(self, model: Runnable) -> None:
        """Follow the answer of a model."""
        self.tight = model.fit is MemoryFit.TIGHT
        self.follow()
        self._changed()

    def update(self, answer: Answer, *, ended: bool) -> None:
        """Draw that an answer of the open chat began or ended."""
        if ended:
            self.tight = False
            self.draw(answer)
            self._view.settle(answer.message)
        self.follow()
        self._changed()

    def follow(self) -> None:
        """Draw from now on where an answer is being written, and rest where none is."""
        if self._timer is not None and self._talk.answer is not None:
            self._timer.resume()
        elif self._timer is not None:
            self._timer.pause()

    def focus(self) -> None:
        """Go to the messages."""
        self._view.focus()

    def typed(self) -> None:
        """Let a key come first."""
        self._typed_at = time.monotonic()

    def paint(self) -> None:
        """Draw what was written since the last time, where it is seen and time for it."""
        answer = self._talk.answer
        begun = time.monotonic()
        if answer is None:
            self.follow()
        elif self._seen() and begun >= self._next:
            if begun - self._typed_at < _TYPING_SECONDS and begun < self._next + _AT_LEAST_SECONDS:
                return
            self.draw(answer)
            self._next = begun + _SHARE * (time.monotonic() - begun)

    def draw(self, answer: Answer) -> None:
        """Draw all that an answer has got."""
        content, reasoning = answer.new_text()
        self._view.feed(answer.message.id, content, reasoning, answer.progress())
        hidden = bool(content or reasoning) and not self._view.following and not self.below
        self.below = self.below or hidden
        self._grown(hidden)
