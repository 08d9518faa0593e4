"""What can be done with the messages of the open chat: copied, folded, switched to another branch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mlxk_tui.chats.model import Message, Role
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.services.conversation.controller import WINDOW, questions_in
from mlxk_tui.ui.chat import dialog_flows as asking
from mlxk_tui.ui.chat.markdown_pieces import CodeBlock, code_blocks
from mlxk_tui.ui.chat.message import MessageBlock
from mlxk_tui.ui.inspector import model_actions

if TYPE_CHECKING:
    from mlxk_tui.ui.chat.pane import ChatPane


class MessageActions:
    """Acts on messages.

    Args:
        pane: the pane.
    """

    def __init__(self, pane: ChatPane) -> None:
        self._pane = pane
        self.more = True
        """Whether there may be messages above the first one."""

    @property
    def block(self) -> MessageBlock | None:
        """The message under the cursor."""
        return self._pane.conversation.selected

    def why_not(self, action: str) -> str | None:
        """Return why an action is not possible for the message under the cursor."""
        block = self.block
        if block is None:
            return "There is no message yet."
        if action == "edit" and self._question(block) is None:
            return "There is no question above."
        if action == "fold" and not block.has_reasoning:
            return "Nothing was thought aloud here."
        if action == "copy_code" and not self._has_code(block):
            return "There is no code block in this message."
        if action == "branch" and block.message.siblings < 2:
            return "This message has no other version."
        return None

    def _has_code(self, block: MessageBlock) -> bool:
        text = block.message.content
        return block.live is not None or "```" in text or "~~~" in text

    def clicked(self, what: tuple[object, ...]) -> None:
        """Do what was clicked on inside a message."""
        kind, message_id, *rest = what
        block = next((one for one in self._pane.conversation.blocks if one.key == message_id), None)
        number = rest[0] if rest and isinstance(rest[0], int) else 0
        if block is None:
            return
        if kind == "fold":
            self._pane.conversation.fold(block.key)
        elif kind == "branch":
            self.turn(block, number)
        elif kind == "retry":
            self._pane.sender.again(block.message)
        elif kind == "copy":
            blocks = code_blocks(self._text(block))
            if number < len(blocks):
                self.copy_block(blocks[number])

    def _text(self, block: MessageBlock) -> str:
        answer = self._pane.talk.answer
        if answer is not None and answer.message.id == block.key:
            return answer.content
        return block.message.content

    def copy(self) -> None:
        """Copy the message."""
        if (block := self.block) is not None:
            self._pane.app.copy_to_clipboard(self._text(block))
            who = "Question" if block.message.role is Role.USER else "Answer"
            self._pane.notify(f"{who} copied.", markup=False, timeout=3)

    def copy_code(self) -> None:
        """Copy a code block of the message; of several, ask which."""
        if (block := self.block) is None:
            return
        blocks = code_blocks(self._text(block))
        if len(blocks) > 1:
            model_actions.ask(self._pane, asking.choose_code(self._pane, blocks))
        elif blocks:
            self.copy_block(blocks[0])
        else:
            self._pane.notify("There is no code block in this message.", markup=False, timeout=3)

    def copy_block(self, block: CodeBlock) -> None:
        """Copy code."""
        self._pane.app.copy_to_clipboard(block.text)
        self._pane.notify("Code copied.", markup=False, timeout=3)

    def fold(self) -> None:
        """Show or hide the reasoning."""
        if (block := self.block) is not None:
            self._pane.conversation.fold(block.key)

    def again(self) -> None:
        """Let the answer under the cursor, or the one to the question there, be written again."""
        if (block := self.block) is None:
            return
        blocks = self._pane.conversation.blocks
        place = blocks.index(block)
        if block.message.role is Role.USER and place + 1 < len(blocks):
            block = blocks[place + 1]
        self._pane.sender.again(block.message)

    def edit(self) -> None:
        """Take the question under the cursor, or the one above it, up again."""
        if (block := self.block) is not None and (question := self._question(block)) is not None:
            questions = questions_in([one.message for one in self._pane.conversation.blocks])
            self._pane.writer.edit(question, questions.index(question))
            self._pane.composer.focus()

    def _question(self, block: MessageBlock) -> Message | None:
        blocks = self._pane.conversation.blocks
        found = questions_in([one.message for one in blocks[: blocks.index(block) + 1]])
        return found[0] if found else None

    def turn(self, block: MessageBlock, way: int) -> None:
        """Show the branch before (-1) or after (1)."""
        if self._pane.talk.answer is not None:
            self._pane.notify("An answer is being written; esc stops it.", markup=False, timeout=4)
        else:
            work = partial(self._turn, block.message, way)
            self._pane.start("branch", work, alone=True)

    async def _turn(self, message: Message, way: int) -> None:
        pane = self._pane
        try:
            shown = await pane.talk.turn(message, way)
            pane.show(await pane.talk.reload(len(pane.conversation.blocks)), keep=True)
            pane.conversation.select(shown)
        except OpError as error:
            model_actions.tell_error(pane, error)

    def read_more(self) -> None:
        """Read earlier messages."""
        blocks = self._pane.conversation.blocks
        if self.more and blocks and self._pane.talk.saved:
            self.more = False
            work = partial(self._read_more, blocks[0].key)
            self._pane.start("more", work, alone=True)

    async def _read_more(self, before: int) -> None:
        conversation = self._pane.conversation
        try:
            found = await self._pane.talk.before(before)
        except OpError as error:
            model_actions.tell_error(self._pane, error)
            return
        if conversation.blocks and conversation.blocks[0].key == before:
            conversation.prepend(found)
            self.more = len(found) >= WINDOW
