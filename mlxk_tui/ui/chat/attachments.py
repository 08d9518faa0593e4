"""Text files attached to a message: found in pasted or typed text, read with bounds, shown as chips."""

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
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.ui.widgets.text import Part, cut, line

MAX_BYTES = 512_000
"""Size limit of an attached file, whose tokens must fit into the context."""
MAX_FILES = 10
_MENTION = re.compile(r"(?:^|(?<=\s))@(\"[^\"\n]+\"|\S+)")


def paths_in_paste(text: str) -> list[str]:
    """Return the files of a paste that consists of paths, as terminals paste dragged files.

    Paths are absolute, quoted or with escaped spaces, or `file://` URLs. Any other text returns an empty
    list.
    """
    stripped = text.strip()
    if not stripped or len(stripped) > 4_000 or "\0" in stripped:
        return []
    single = _to_path(stripped)
    if single and os.path.isfile(single):
        return [single]
    try:
        words = shlex.split(stripped)
    except ValueError:
        return []
    found = [_to_path(word) for word in words]
    return [path for path in found if path] if found and all(p and os.path.isfile(p) for p in found) else []


def _to_path(word: str) -> str | None:
    try:
        if word.startswith("file://"):
            parts = urlsplit(word)
            return unquote(parts.path) if parts.netloc in {"", "localhost"} else None
        word = os.path.expanduser(word)
    except ValueError:  # half an IPv6 address, or an invalid user name
        return None
    return word if os.path.isabs(word) else None


def mentioned_files(text: str) -> list[str]:
    """Return the existing files that a message mentions as `@path` or `@"a path"`."""
    found = []
    for match in _MENTION.finditer(text[:20_000]):
        word = match.group(1).strip('"')
        for candidate in (word, word.rstrip(".,;:!?)")):
            try:
                path = os.path.abspath(os.path.expanduser(candidate))
            except ValueError:  # an invalid user name
                continue
            if "\0" not in path and os.path.isfile(path):
                found.append(path)
                break
    return list(dict.fromkeys(found))


def read_attachment(path: str) -> Attachment:
    """Read a text file; blocking, for threads.

    Raises:
        OpError: `validation_error` if it is not a file, not text or too large.
    """
    name = os.path.basename(path)
    label = printable(name)
    try:
        # O_NONBLOCK: a pipe or a device must not block.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
            if not os.path.isfile(path):
                raise OpError(ErrorType.VALIDATION_ERROR, f"{label} is not a file. Choose a text file.")
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error_reason(error)
        raise OpError(
            ErrorType.VALIDATION_ERROR, f"Can't read {label}: {reason}. Choose another file."
        ) from error
    if len(data) > MAX_BYTES:
        raise OpError(
            ErrorType.VALIDATION_ERROR,
            f"{label} is larger than {format_size(MAX_BYTES)}. Attach or paste a part of it.",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise OpError(ErrorType.VALIDATION_ERROR, f"{label} is not UTF-8 text. Attach a text file.")
    return Attachment(name, text)


@dataclass
class _RemoveButton:
    """The cells of a chip's cross."""

    begin: int
    end: int
    index: int


class AttachmentBar(Static):
    """Chips of the files attached to the next message; a click on a cross removes one."""

    @dataclass
    class Removed(Message):
        """The cross of a chip was clicked."""

        index: int

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id)
        self._buttons: list[_RemoveButton] = []
        self._items: Sequence[Attachment] = ()
        self.display = False

    def show(self, items: Sequence[Attachment]) -> None:
        """Show the chips; hidden if there are none."""
        self._items = list(items)
        self.display = bool(items)
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        parts: list[Part] = []
        self._buttons = []
        x = 0
        room = max(12, self.size.width or 60)
        for index, item in enumerate(self._items):
            size = format_size(len(item.text.encode("utf-8", "replace")))
            name = cut(printable(item.name), 24)
            chip: list[Part] = [("+ ", "$accent"), (name, ""), (f" {size}", "$muted"), (" ✕", "$muted")]
            width = sum(cell_len(text) for text, _ in chip)
            if parts and x + width > room - 6:
                parts.append((f"+{len(self._items) - index} more", "$muted"))
                break
            self._buttons.append(_RemoveButton(x + width - 2, x + width, index))
            parts += [*chip, ("   ", "")]
            x += width + 3
        self.update(line(parts))

    def on_click(self, event: events.Click) -> None:
        for button in self._buttons:
            if button.begin <= event.x < button.end:
                self.post_message(self.Removed(button.index))
