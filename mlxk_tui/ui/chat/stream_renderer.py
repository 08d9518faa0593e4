"""Draws an answer as it is written: often enough to flow, seldom enough that keys find the loop free."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual.timer import Timer

from mlxk_tui.services.conversation.answer import Answer

if TYPE_CHECKING:
    from mlxk_tui.ui.chat.pane import ChatPane

_PAINT_SECONDS = 0.04
"""How often an answer that is being written is drawn: 25 times a second at most."""
_SHARE = 12
"""How many times as long as it took to draw nothing is drawn; Textual's part takes twice as long again."""
_TYPING_SECONDS, _AT_LEAST_SECONDS = 0.05, 0.15
"""For how long a key puts a drawing off, and for how long all keys together may."""


class StreamRenderer:
    """Draws what the open chat's answer has got since the last time.

    Args:
        pane: the pane.
    """

    def __init__(self, pane: ChatPane) -> None:
        self._pane = pane
        self._timer: Timer | None = None
        self._next = self._typed_at = 0.0

    def mount(self) -> None:
        """Begin; nothing happens before there is an answer to `follow`."""
        self._timer = self._pane.set_interval(_PAINT_SECONDS, self.paint, pause=True)

    def follow(self) -> None:
        """Draw from now on where an answer is being written, and rest where none is."""
        if self._timer is not None and self._pane.talk.answer is not None:
            self._timer.resume()
        elif self._timer is not None:
            self._timer.pause()

    def typed(self) -> None:
        """Let a key come first."""
        self._typed_at = time.monotonic()

    def paint(self) -> None:
        """Draw what was written since the last time, where it is seen and time for it."""
        pane = self._pane
        answer = pane.talk.answer
        begun = time.monotonic()
        if answer is None:
            self.follow()
        elif pane.app.current_mode == pane.pane_id and begun >= self._next:
            if begun - self._typed_at < _TYPING_SECONDS and begun < self._next + _AT_LEAST_SECONDS:
                return
            self.draw(answer)
            self._next = begun + _SHARE * (time.monotonic() - begun)

    def draw(self, answer: Answer) -> None:
        """Draw all that an answer has got."""
        content, reasoning = answer.new_text()
        pane = self._pane
        pane.conversation.feed(answer.message.id, content, reasoning, answer.live())
        pane.answer_drawn(grown=bool(content or reasoning))
