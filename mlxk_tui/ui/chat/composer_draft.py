"""What stands in the composer: a question, the files that go with it, and of which question it is an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlxk_tui.chats.model import Attachment, Message
from mlxk_tui.services.conversation.controller import PendingQuestion, questions_in
from mlxk_tui.ui.chat.attachments import MAX_FILES

if TYPE_CHECKING:
    from mlxk_tui.ui.chat.pane import ChatPane


class ComposerDraft:
    """The question that is being written, and those that were begun in other chats.

    Args:
        pane: the pane.
    """

    def __init__(self, pane: ChatPane) -> None:
        self.attachments: list[Attachment] = []
        """What goes with the next question."""
        self.editing: Message | None = None
        """The question that another version is written of."""
        self._pane = pane
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
        text, files = self._pane.composer.text, self.attachments
        if (edited := self.editing) is not None and (text, files) == (
            edited.content,
            list(edited.attachments),
        ):
            text, files = "", []  # taken up again, and nothing was changed
        begun = [(text, files), *self._drafts.values()]
        return sum(bool(text.strip() or files) for text, files in begun)

    def leave_draft(self) -> None:
        """Keep what is there for the chat that is left; an edit is given up."""
        if self.editing is None:
            self._drafts[self._pane.talk.session.id] = (self._pane.composer.text, self.attachments)
        self.stop_editing()

    def take_draft(self) -> None:
        """Go on with what was begun in the chat that is open now."""
        text, files = self._drafts.pop(self._pane.talk.session.id, ("", []))
        self._pane.composer.put(text)
        self.use(files)
        self._pane.composer.focus()

    def clear(self) -> None:
        """Empty the composer."""
        self.stop_editing()
        self._pane.composer.put("")
        self.use([])

    def use(self, items: list[Attachment]) -> None:
        """Let files go with the next question."""
        self.attachments = items
        self._pane.chips.show(items)

    def add(self, item: Attachment) -> None:
        """Let one more file go with the next question."""
        if len(self.attachments) >= MAX_FILES:
            said = f"At most {MAX_FILES} files go with a question."
            self._pane.notify(said, severity="warning", markup=False)
        elif item not in self.attachments:
            self.use([*self.attachments, item])

    def paste(self, text: str) -> None:
        """Attach a text that is too long for the composer."""
        self.add(Attachment(f"pasted-{len(self.attachments) + 1}.txt", text))

    def remove(self, index: int) -> None:
        """Take a file out; -1 is the last one."""
        index %= max(1, len(self.attachments))
        self.use([one for place, one in enumerate(self.attachments) if place != index])

    def recall(self, way: int) -> None:
        """Take an earlier (-1) or later (1) question up again."""
        questions = questions_in([block.message for block in self._pane.conversation.blocks])
        place = self._recalled - way
        if place < 0:
            self.clear()
        elif place < len(questions):
            self.edit(questions[place], place)

    def edit(self, message: Message, place: int) -> None:
        """Put a question into the composer, to be sent as another version; `place` counts from the last."""
        self.editing, self._recalled = message, place
        self._pane.composer.recalling = True
        self.use(list(message.attachments))
        self._pane.composer.put(message.content)
        self._pane.draw_note()

    def stop_editing(self) -> None:
        """Let what is written be a new question."""
        self.editing, self._recalled = None, -1
        self._pane.composer.recalling = False
        self._pane.draw_note()
