"""The transcript: one widget that renders only the visible lines, however many messages there are.

Textual's Markdown (8.2.8) creates a widget for every block, and each added token computes the layout of the
screen again. Here a message is a list of cached lines; while an answer streams only its last piece is
rendered again.
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
from mlxk_tui.ui.chat.transcript.line_painter import LinePainter, LineSelection
from mlxk_tui.ui.chat.transcript.markdown import TOKENS, MarkdownRenderer, TranscriptStyles
from mlxk_tui.ui.chat.transcript.message import MessageBlock

MAX_WIDTH = 104
"""Longest line in cells: longer ones are hard to read."""
_GUTTER = 2
_STEP = 3


class ConversationView(ScrollView, can_focus=True):
    """The messages of a chat, oldest first, with a cursor on one of them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"plain", "code", *TOKENS}
    BINDING_GROUP_TITLE = "Chat: messages"
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
        """A link in a message was clicked.

        `('branch', id, direction)`, `('fold', id)`, `('retry', id)` or `('copy', id, code block)`.
        """

        link: tuple[object, ...]

    @dataclass
    class CursorMoved(Event):
        """The cursor moved to another message."""

    @dataclass
    class MoreRequested(Event):
        """The visible part is near the first loaded message."""

    @dataclass
    class FollowChanged(Event):
        """The view started or stopped following the end."""

        following: bool

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self.blocks: list[MessageBlock] = []
        self.following = True
        """Whether the view stays at the end while text is added."""
        self.cursor = -1
        """Index of the message that keys act on; -1 for none."""
        self._renderer: MarkdownRenderer | None = None
        self._tops: list[int] = []
        self._height = 0
        self._layout_width = 16
        """Cells that the lines were rendered for: a frame may be drawn before the resize event."""
        self._auto_scrolling = False
        """Whether the view itself scrolls, and not the user."""
        self._painter = LinePainter()

    # -- content -----------------------------------------------------------------------------------

    def show(
        self, messages: Sequence[Message], live: AnswerProgress | None = None, *, keep_position: bool = False
    ) -> None:
        """Show the messages of a chat.

        Args:
            messages: the last messages, oldest first.
            live: the progress of the last one, where it is being generated.
            keep_position: whether to keep the scroll position, as after a switch of branches; by default the
                view scrolls to the end.
        """
        top = round(self.scroll_y)
        unfolded = {block.key for block in self.blocks if block.unfolded}
        self.blocks = [MessageBlock(message) for message in messages]
        for block in self.blocks:
            block.unfolded = block.key in unfolded
        if live is not None and self.blocks:
            self.blocks[-1].live = live
        self.cursor = len(self.blocks) - 1
        self._lay_out()
        if keep_position:
            self._scroll(min(top, self._last_top))
            self._set_following(top >= self._last_top)
        else:
            self.follow()
        self.post_message(self.CursorMoved())

    def append(self, message: Message, live: AnswerProgress | None = None) -> None:
        """Add a message at the end."""
        block = MessageBlock(message, live)
        self.blocks.append(block)
        self.cursor = len(self.blocks) - 1
        self._message_changed(len(self.blocks) - 1)
        self.post_message(self.CursorMoved())

    def prepend(self, messages: Sequence[Message]) -> None:
        """Add messages before the first one; the visible part stays the same."""
        if not messages:
            return
        before = self._height
        self.blocks[:0] = [MessageBlock(message) for message in messages]
        self.cursor += len(messages) if self.cursor >= 0 else 0
        top = round(self.scroll_y)
        self._lay_out()
        self._scroll(top + self._height - before)

    def trim(self, count: int) -> None:
        """Remove all messages but the last `count`."""
        if len(self.blocks) <= count:
            return
        removed = len(self.blocks) - count
        del self.blocks[:removed]
        self.cursor = max(0, self.cursor - removed)
        self._lay_out()
        self.follow()

    def feed(self, message_id: int, content: str, reasoning: str, live: AnswerProgress) -> None:
        """Add text to a streaming answer."""
        index = self._index(message_id)
        if index >= 0:
            block = self.blocks[index]
            block.live = live
            block.feed(content, reasoning)
            self._message_changed(index)

    def finish(self, message: Message) -> None:
        """Replace a streamed message by the stored one."""
        index = self._index(message.id)
        if index >= 0:
            self.blocks[index].finish(message)
            self._message_changed(index)
            self.post_message(self.CursorMoved())

    def _index(self, message_id: int) -> int:
        return next((i for i in range(len(self.blocks) - 1, -1, -1) if self.blocks[i].key == message_id), -1)

    def fold(self, message_id: int) -> None:
        """Fold or unfold the reasoning of a message."""
        index = self._index(message_id)
        if index >= 0 and (self.blocks[index].has_reasoning or self.blocks[index].unfolded):
            self.blocks[index].unfolded = not self.blocks[index].unfolded
            self.blocks[index].invalidate()
            self._message_changed(index)

    @property
    def messages(self) -> list[Message]:
        """The loaded messages, oldest first."""
        return [block.message for block in self.blocks]

    @property
    def selected(self) -> MessageBlock | None:
        """The message under the cursor, which keys act on."""
        return self.blocks[self.cursor] if 0 <= self.cursor < len(self.blocks) else None

    def select(self, message_id: int) -> None:
        """Move the cursor to a message and scroll to it."""
        index = self._index(message_id)
        if index >= 0:
            self._set_cursor(index)
            self._scroll(max(0, self._tops[index] - 1))
            self._set_following(round(self.scroll_y) >= self._last_top)

    # -- layout ------------------------------------------------------------------------------------

    @property
    def _width(self) -> int:
        return max(16, min(MAX_WIDTH, self.scrollable_content_region.width - _GUTTER - 1))

    @property
    def renderer(self) -> MarkdownRenderer:
        """Renders in the current theme."""
        if self._renderer is None:
            styles = {}
            for token in TOKENS:
                style = self.get_component_rich_style(token, partial=True)
                styles[token] = Style(color=style.color, bold=style.bold or None, dim=style.dim or None)
            code = Style(bgcolor=self.get_component_rich_style("code").bgcolor)
            self._renderer = MarkdownRenderer(self.app.console, TranscriptStyles(styles, code))
        return self._renderer

    def _lines(self, index: int) -> list[Strip]:
        return self.blocks[index].lines(self.renderer, self._layout_width)

    def _lay_out(self, first: int = 0) -> None:
        """Compute the positions of the messages from `first` on."""
        if not self.scrollable_content_region.width:  # hidden: a resize event follows before it is shown
            self._tops, self._height = [], 0
            return
        if self._layout_width != self._width:
            self._layout_width, first = self._width, 0
        first = min(first, len(self._tops))
        del self._tops[first:]
        top = self._tops[-1] + len(self._lines(first - 1)) if first else 0
        for index in range(first, len(self.blocks)):
            self._tops.append(top)
            top += len(self._lines(index))
        self._height = top
        self.virtual_size = Size(0, top)
        self.refresh()

    def _message_changed(self, index: int) -> None:
        following = self.following
        self._lay_out(index)
        if following:
            self._scroll(self._last_top)

    @property
    def _last_top(self) -> int:
        return max(0, self._height - self.scrollable_content_region.height)

    def _scroll(self, y: int) -> None:
        self._auto_scrolling = True
        self.scroll_to(y=max(0, y), animate=False, immediate=True, force=True)
        self._auto_scrolling = False

    def follow(self) -> None:
        """Scroll to the end and follow it."""
        self._scroll(self._last_top)
        self._set_following(True)

    def _set_following(self, following: bool) -> None:
        if following != self.following:
            self.following = following
            self.post_message(self.FollowChanged(following))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Stop following when the user scrolls up; follow again once the end is visible."""
        super().watch_scroll_y(old_value, new_value)
        if self._auto_scrolling or not self._tops:
            return
        self._set_following(round(new_value) >= self._last_top)
        if new_value < old_value and new_value <= self.scrollable_content_region.height:
            self.post_message(self.MoreRequested())

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        """Give a scrollbar that appears the current position, which it missed (Textual 8.2.8)."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y

    def notify_style_update(self) -> None:
        super().notify_style_update()
        # Created when a line is rendered: the component styles are still the old ones (Textual 8.2.8).
        self._renderer = None
        self._painter.clear_cache()

    def on_resize(self) -> None:
        """Compute the layout for the new width; keep the top message in place, or the end."""
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
        plain = self.get_component_rich_style("plain")
        width = self.scrollable_content_region.width
        number = y + round(self.scroll_y)
        index = bisect_right(self._tops, number) - 1
        if index < 0 or number >= self._height:
            return Strip.blank(width, plain)
        lines = self._lines(index)
        row = number - self._tops[index]
        on_cursor = index == self.cursor and self.has_focus and row < len(lines) - 1
        if (selected := self.text_selection) is not None:
            style = self.screen.get_component_rich_style("screen--selection")
            selection = LineSelection(selected.get_span(number), style)
        else:
            selection = None
        return self._painter.paint(
            number,
            lines[row],
            width=width,
            plain=plain,
            accent=self.renderer.styles["accent"],
            on_cursor=on_cursor,
            selection=selection,
        )

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        rows = [line.text.rstrip() for index in range(len(self.blocks)) for line in self._lines(index)]
        text = selection.extract("\n".join(f"  {row}" if row else row for row in rows))
        return "\n".join(row.removeprefix("  ") for row in text.split("\n")), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        del selection
        self.refresh()

    # -- cursor ------------------------------------------------------------------------------------

    def _set_cursor(self, index: int) -> None:
        index = max(0, min(index, len(self.blocks) - 1))
        if index != self.cursor and self.blocks:
            self.cursor = index
            self.refresh()
            self.post_message(self.CursorMoved())

    def _scroll_as_user(self, y: int) -> None:
        """Scroll like the user does, so that following starts and stops."""
        self.scroll_to(y=max(0, min(y, self._last_top)), animate=False, immediate=True)

    def action_move(self, direction: int) -> None:
        """Move to the next message; within a long one, scroll by a few lines."""
        if self.cursor < 0 or not self._tops:
            return
        view = self.scrollable_content_region.height
        top = round(self.scroll_y)
        first = self._tops[self.cursor]
        last = first + len(self._lines(self.cursor))
        if (direction > 0 and last > top + view) or (direction < 0 and first < top):
            self._scroll_as_user(top + direction * _STEP)
            return
        self._set_cursor(self.cursor + direction)
        first = self._tops[self.cursor]
        last = first + len(self._lines(self.cursor))
        if direction > 0 and last > top + view:
            self._scroll_as_user(min(first, last - view) if last - first <= view else first)
        elif direction < 0 and first < top:
            self._scroll_as_user(first if last - first <= view else max(first, last - view))
        if self.cursor == 0 and direction < 0:
            self._scroll_as_user(0)
            self.post_message(self.MoreRequested())

    def action_page(self, direction: int) -> None:
        """Scroll by a screenful, with the cursor."""
        view = self.scrollable_content_region.height
        self._scroll_as_user(round(self.scroll_y) + direction * max(1, view - 2))
        top = round(self.scroll_y)
        inside = bisect_right(self._tops, top + (view - 1 if direction > 0 else 0)) - 1
        self._set_cursor(inside)

    def action_top(self) -> None:
        """Move to the first loaded message."""
        self._set_cursor(0)
        self._scroll_as_user(0)
        self.post_message(self.MoreRequested())

    def action_bottom(self) -> None:
        """Move to the last message and follow the end."""
        self._set_cursor(len(self.blocks) - 1)
        self.follow()

    def last(self, role: Role) -> MessageBlock | None:
        """Return the last message of a role; None if there is none."""
        return next((block for block in reversed(self.blocks) if block.message.role is role), None)

    # -- mouse and focus ---------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the clicked message; report a clicked link."""
        number = event.y + round(self.scroll_y)
        index = bisect_right(self._tops, number) - 1
        if 0 <= index < len(self.blocks) and number < self._height:
            self._set_cursor(index)
        link = event.style.meta.get("chat")
        if isinstance(link, tuple):
            self.post_message(self.Clicked(link))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
