"""Text files that go with a question: found in what was pasted or typed, read with care, shown as chips."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.widgets import Static

from mlxk_tui.chats.model import Attachment
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.os_errors import reason_of
from mlxk_tui.ops.core.text import printable, spaced_size
from mlxk_tui.ui.widgets.text import Part, cut, line

MAX_BYTES = 512_000
"""Largest file that can be attached; its tokens must fit into a context."""
MAX_FILES = 10
_MENTION = re.compile(r"(?:^|(?<=\s))@(\"[^\"\n]+\"|\S+)")


def paths_in_paste(text: str) -> list[str]:
    """Return the files that a paste consists of, as terminals write them when files are dragged in.

    That is one or more absolute paths, quoted or with escaped spaces, or `file://` addresses. Anything
    else is text, and an empty list comes back.
    """
    words = text.strip()
    if not words or len(words) > 4_000 or "\0" in words:
        return []
    whole = _path_of(words)
    if whole and os.path.isfile(whole):
        return [whole]
    try:
        split = shlex.split(words)
    except ValueError:
        return []
    found = [_path_of(word) for word in split]
    return [path for path in found if path] if found and all(p and os.path.isfile(p) for p in found) else []


def _path_of(word: str) -> str | None:
    try:
        if word.startswith("file://"):
            parts = urlsplit(word)
            return unquote(parts.path) if parts.netloc in {"", "localhost"} else None
        word = os.path.expanduser(word)
    except ValueError:  # half an IPv6 address, or a user's name that the system cannot take
        return None
    return word if os.path.isabs(word) else None


def mentioned(text: str) -> list[str]:
    """Return the files that a question names as `@path` or `@"a path"`; what is no file is no mention."""
    found = []
    for match in _MENTION.finditer(text[:20_000]):
        word = match.group(1).strip('"')
        for candidate in (word, word.rstrip(".,;:!?)")):
            try:
                path = os.path.abspath(os.path.expanduser(candidate))
            except ValueError:  # a user's name that the system cannot take
                continue
            if "\0" not in path and os.path.isfile(path):
                found.append(path)
                break
    return list(dict.fromkeys(found))


def read_attachment(path: str) -> Attachment:
    """Read a text file; blocking, for threads.

    Raises:
        OpError: `validation_error` where it is no text, too large or no file.
    """
    name = os.path.basename(path)
    shown = printable(name)
    try:
        # Never a pipe or a device, which would block or have no end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not os.path.isfile(path):
                raise OpError(ErrorType.VALIDATION_ERROR, f"{shown} is no file. Choose a text file.")
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = reason_of(error)
        raise OpError(
            ErrorType.VALIDATION_ERROR, f"{shown} cannot be read: {reason}. Choose another file."
        ) from error
    if len(data) > MAX_BYTES:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{shown} is larger than {spaced_size(MAX_BYTES)}. Attach a part of it, or paste what matters.",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise OpError(ErrorType.VALIDATION_ERROR, f"{shown} is not text in UTF-8. Attach a text file.")
    return Attachment(name, text)


@dataclass
class _Span:
    begin: int
    end: int
    index: int


class AttachmentBar(Static):
    """What goes with the next question; a click on a cross takes it out."""

    @dataclass
    class Removed(Message):
        """A chip is to go."""

        index: int

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._spans: list[_Span] = []
        self._items: Sequence[Attachment] = ()
        self.display = False

    def show(self, items: Sequence[Attachment]) -> None:
        """Show chips, or nothing."""
        self._items = list(items)
        self.display = bool(items)
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new width."""
        self._draw()

    def _draw(self) -> None:
        parts: list[Part] = []
        self._spans = []
        place = 0
        room = max(12, self.size.width or 60)
        for index, item in enumerate(self._items):
            size = spaced_size(len(item.text.encode("utf-8", "replace")))
            name = cut(printable(item.name), 24)
            chip: list[Part] = [("+ ", "$accent"), (name, ""), (f" {size}", "$muted"), (" ✕", "$muted")]
            width = sum(cell_len(text) for text, _ in chip)
            if parts and place + width > room - 6:
                parts.append((f"+{len(self._items) - index} more", "$muted"))
                break
            self._spans.append(_Span(place + width - 2, place + width, index))
            parts += [*chip, ("   ", "")]
            place += width + 3
        self.update(line(parts))

    def on_click(self, event: events.Click) -> None:
        """Take out the chip whose cross was clicked."""
        for span in self._spans:
            if span.begin <= event.x < span.end:
                self.post_message(self.Removed(span.index))
