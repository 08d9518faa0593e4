"""The conversation: one widget that draws the lines on screen, however many messages there are.

Textual's Markdown makes a node of every block, and each token that is added lays the screen out again
(8.2.8). Here a message is a list of lines that is made once; while an answer is written only its last
piece is drawn again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message as Event
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

from mlxk_tui.chats.model import Message, Role
from mlxk_tui.services.conversation.answer import AnswerProgress
from mlxk_tui.ui.chat.transcript.line_painter import LinePainter, Marked
from mlxk_tui.ui.chat.transcript.markdown import TOKENS, Drawer, Ink
from mlxk_tui.ui.chat.transcript.message import MessageBlock

WIDEST = 104
"""Cells that text takes at most: longer lines are hard to read."""
_GUTTER = 2
_STEP = 3


class ConversationView(ScrollView, can_focus=True):
    """Messages, oldest first, with a cursor on one of them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plain", "code", *TOKENS}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False, id="conversation.down"),
        Binding("up,k", "move(-1)", "Up", show=False, id="conversation.up"),
        Binding("g,home", "top", "Beginning", show=False, id="conversation.first"),
        Binding("G,end", "bottom", "End", show=False, id="conversation.last"),
        Binding("pagedown,ctrl+d,space", "page(1)", "Page down", show=False, id="conversation.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="conversation.page_up"),
    ]

    @dataclass
    class Clicked(Event):
        """Something inside a message was clicked: (`branch`, id, way), (`fold`, id), (`copy`, id, block)."""

        what: tuple[object, ...]

    @dataclass
    class Moved(Event):
        """The cursor stands on another message."""

    @dataclass
    class WantsMore(Event):
        """The reader is near the first message that is there."""

    @dataclass
    class Followed(Event):
        """The end came into sight, or left it."""

        following: bool

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.blocks: list[MessageBlock] = []
        self.following = True
        """Whether the view stays at the end while text is added."""
        self.cursor = -1
        """Index of the message that keys act on; -1 for none."""
        self._drawer: Drawer | None = None
        self._tops: list[int] = []
        self._height = 0
        self._laid = 16
        """Cells that the lines were made for: a frame may be drawn before a resize is told."""
        self._moving = False
        self._painter = LinePainter()

    # -- content -----------------------------------------------------------------------------------

    def show(
        self, messages: Sequence[Message], live: AnswerProgress | None = None, *, keep: bool = False
    ) -> None:
        """Show a conversation from its end.

        Args:
            messages: its last messages, oldest first.
            live: how far the last one is, where it is being written here.
            keep: whether the place on the screen stays, as after a branch was switched.
        """
        top = round(self.scroll_y)
        open_ones = {block.key for block in self.blocks if block.unfolded}
        self.blocks = [MessageBlock(message) for message in messages]
        for block in self.blocks:
            block.unfolded = block.key in open_ones
        if live is not None and self.blocks:
            self.blocks[-1].live = live
        self.cursor = len(self.blocks) - 1
        self._lay_out()
        if keep:
            self._scroll(min(top, self._last_top))
            self._set_following(top >= self._last_top)
        else:
            self.follow()
        self.post_message(self.Moved())

    def append(self, message: Message, live: AnswerProgress | None = None) -> None:
        """Add a message at the end."""
        block = MessageBlock(message, live)
        self.blocks.append(block)
        self.cursor = len(self.blocks) - 1
        self._grown(len(self.blocks) - 1)
        self.post_message(self.Moved())

    def prepend(self, messages: Sequence[Message]) -> None:
        """Add messages before the first; what is on the screen stays where it is."""
        if not messages:
            return
        before = self._height
        self.blocks[:0] = [MessageBlock(message) for message in messages]
        self.cursor += len(messages) if self.cursor >= 0 else 0
        top = round(self.scroll_y)
        self._lay_out()
        self._scroll(top + self._height - before)

    def keep_last(self, count: int) -> bool:
        """Forget all but the last messages; return whether any were forgotten."""
        if len(self.blocks) <= count:
            return False
        gone = len(self.blocks) - count
        del self.blocks[:gone]
        self.cursor = max(0, self.cursor - gone)
        self._lay_out()
        self.follow()
        return True

    def feed(self, message_id: int, content: str, reasoning: str, live: AnswerProgress) -> None:
        """Add text to the answer that is being written."""
        index = self._index(message_id)
        if index >= 0:
            block = self.blocks[index]
            block.live = live
            block.feed(content, reasoning)
            self._grown(index)

    def settle(self, message: Message) -> None:
        """Show a finished message in the place of the one that was written."""
        index = self._index(message.id)
        if index >= 0:
            self.blocks[index].settle(message)
            self._grown(index)
            self.post_message(self.Moved())

    def _index(self, message_id: int) -> int:
        return next((i for i in range(len(self.blocks) - 1, -1, -1) if self.blocks[i].key == message_id), -1)

    def fold(self, message_id: int) -> None:
        """Fold or unfold the reasoning of a message."""
        index = self._index(message_id)
        if index >= 0 and (self.blocks[index].has_reasoning or self.blocks[index].unfolded):
            self.blocks[index].unfolded = not self.blocks[index].unfolded
            self.blocks[index].touch()
            self._grown(index)

    @property
    def messages(self) -> list[Message]:
        """The messages, oldest first."""
        return [block.message for block in self.blocks]

    @property
    def selected(self) -> MessageBlock | None:
        """The message that keys act on."""
        return self.blocks[self.cursor] if 0 <= self.cursor < len(self.blocks) else None

    def select(self, message_id: int) -> None:
        """Put the cursor on a message and bring it into sight."""
        index = self._index(message_id)
        if index >= 0:
            self._set_cursor(index)
            self._scroll(max(0, self._tops[index] - 1))
            self._set_following(round(self.scroll_y) >= self._last_top)

    # -- layout ------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return max(16, min(WIDEST, self.scrollable_content_region.width - _GUTTER - 1))

    @property
    def drawer(self) -> Drawer:
        """What draws in the present theme."""
        if self._drawer is None:
            styles = {}
            for token in TOKENS:
                style = self.get_component_rich_style(token, partial=True)
                styles[token] = Style(color=style.color, bold=style.bold or None, dim=style.dim or None)
            ground = self.get_component_rich_style("code")
            self._drawer = Drawer(self.app.console, Ink(styles, Style(bgcolor=ground.bgcolor)))
        return self._drawer

    def _lines(self, index: int) -> list[Strip]:
        return self.blocks[index].lines(self.drawer, self._laid)

    def _lay_out(self, first: int = 0) -> None:
        """Measure the messages from one on."""
        if not self.scrollable_content_region.width:  # not shown: a resize comes before it is
            self._tops, self._height = [], 0
            return
        if self._laid != self._width:
            self._laid, first = self._width, 0
        first = min(first, len(self._tops))
        del self._tops[first:]
        top = self._tops[-1] + len(self._lines(first - 1)) if first else 0
        for index in range(first, len(self.blocks)):
            self._tops.append(top)
            top += len(self._lines(index))
        self._height = top
        self.virtual_size = Size(0, top)
        self.refresh()

    def _grown(self, index: int) -> None:
        following = self.following
        self._lay_out(index)
        if following:
            self._scroll(self._last_top)

    @property
    def _last_top(self) -> int:
        return max(0, self._height - self.scrollable_content_region.height)

    def _scroll(self, y: int) -> None:
        self._moving = True
        self.scroll_to(y=max(0, y), animate=False, immediate=True, force=True)
        self._moving = False

    def follow(self) -> None:
        """Go to the end and stay there."""
        self._scroll(self._last_top)
        self._set_following(True)

    def _set_following(self, following: bool) -> None:
        if following != self.following:
            self.following = following
            self.post_message(self.Followed(following))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Stop following where the reader scrolls up, and go on once the end is in sight."""
        super().watch_scroll_y(old_value, new_value)
        if self._moving or not self._tops:
            return
        self._set_following(round(new_value) >= self._last_top)
        if new_value < old_value and new_value <= self.scrollable_content_region.height:
            self.post_message(self.WantsMore())

    def notify_style_update(self) -> None:
        """Draw in the new theme."""
        super().notify_style_update()
        # Made again when a line is drawn: the component styles are still the old ones (Textual 8.2.8).
        self._drawer = None
        self._painter.forget()

    def on_resize(self) -> None:
        """Draw for the new width; the message at the top stays there, or the end."""
        index = bisect_right(self._tops, round(self.scroll_y)) - 1
        following = self.following
        offset = round(self.scroll_y) - self._tops[index] if index >= 0 else 0
        self._lay_out()
        if following or index < 0:
            self._scroll(self._last_top)
        else:
            self._scroll(self._tops[index] + min(offset, len(self._lines(index)) - 1))

    # -- drawing -----------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """Draw one line of the visible part."""
        plain = self.get_component_rich_style("plain")
        width = self.scrollable_content_region.width
        number = y + round(self.scroll_y)
        index = bisect_right(self._tops, number) - 1
        if index < 0 or number >= self._height:
            return Strip.blank(width, plain)
        lines = self._lines(index)
        row = number - self._tops[index]
        on_cursor = index == self.cursor and self.has_focus and row < len(lines) - 1
        if (selection := self.text_selection) is not None:
            mark = self.screen.get_component_rich_style("screen--selection")
            marked = Marked(selection.get_span(number), mark)
        else:
            marked = None
        return self._painter.paint(
            number,
            lines[row],
            width=width,
            plain=plain,
            accent=self.drawer.ink["accent"],
            on_cursor=on_cursor,
            marked=marked,
        )

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Return the text that was marked with the mouse."""
        rows = [line.text.rstrip() for index in range(len(self.blocks)) for line in self._lines(index)]
        text = selection.extract("\n".join(f"  {row}" if row else row for row in rows))
        return "\n".join(row.removeprefix("  ") for row in text.split("\n")), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Draw what is marked."""
        del selection
        self.refresh()

    # -- cursor ------------------------------------------------------------------------------------

    def _set_cursor(self, index: int) -> None:
        index = max(0, min(index, len(self.blocks) - 1))
        if index != self.cursor and self.blocks:
            self.cursor = index
            self.refresh()
            self.post_message(self.Moved())

    def _scrolled(self, y: int) -> None:
        """Scroll as the reader does."""
        self.scroll_to(y=max(0, min(y, self._last_top)), animate=False, immediate=True)

    def action_move(self, way: int) -> None:
        """Go to the next message; through a long one by a few lines."""
        if self.cursor < 0 or not self._tops:
            return
        view = self.scrollable_content_region.height
        top = round(self.scroll_y)
        first = self._tops[self.cursor]
        last = first + len(self._lines(self.cursor))
        if (way > 0 and last > top + view) or (way < 0 and first < top):
            self._scrolled(top + way * _STEP)
            return
        self._set_cursor(self.cursor + way)
        first = self._tops[self.cursor]
        last = first + len(self._lines(self.cursor))
        if way > 0 and last > top + view:
            self._scrolled(min(first, last - view) if last - first <= view else first)
        elif way < 0 and first < top:
            self._scrolled(first if last - first <= view else max(first, last - view))
        if self.cursor == 0 and way < 0:
            self._scrolled(0)
            self.post_message(self.WantsMore())

    def action_page(self, way: int) -> None:
        """Scroll by a screenful; the cursor comes along."""
        view = self.scrollable_content_region.height
        self._scrolled(round(self.scroll_y) + way * max(1, view - 2))
        top = round(self.scroll_y)
        inside = bisect_right(self._tops, top + (view - 1 if way > 0 else 0)) - 1
        self._set_cursor(inside)

    def action_top(self) -> None:
        """Go to the first message that is there."""
        self._set_cursor(0)
        self._scrolled(0)
        self.post_message(self.WantsMore())

    def action_bottom(self) -> None:
        """Go to the end and follow it."""
        self._set_cursor(len(self.blocks) - 1)
        self.follow()

    def last(self, role: Role) -> MessageBlock | None:
        """Return the last message of a role."""
        return next((block for block in reversed(self.blocks) if block.message.role is role), None)

    # -- mouse and focus ---------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """Do what was clicked on, or put the cursor there."""
        number = event.y + round(self.scroll_y)
        index = bisect_right(self._tops, number) - 1
        if 0 <= index < len(self.blocks) and number < self._height:
            self._set_cursor(index)
        what = event.style.meta.get("chat")
        if isinstance(what, tuple):
            self.post_message(self.Clicked(what))

    def on_focus(self) -> None:
        """Show the cursor."""
        self.refresh()

    def on_blur(self) -> None:
        """Hide the cursor."""
        self.refresh()
