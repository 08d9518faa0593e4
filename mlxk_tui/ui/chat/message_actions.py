"""What can be done with the messages of the open chat: copied, folded, switched to another branch."""

from __future__ import annotations

from functools import partial

from mlxk_tui.chats.model import Message, Role
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.services.conversation.controller import WINDOW, ConversationController, questions_in
from mlxk_tui.ui.chat import dialog_flows
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.prompt_submission import ComposerDraft, PromptSubmission
from mlxk_tui.ui.chat.transcript.markdown_pieces import CodeBlock, code_blocks
from mlxk_tui.ui.chat.transcript.message import MessageBlock
from mlxk_tui.ui.chat.transcript.stream_renderer import StreamRenderer
from mlxk_tui.ui.chat.transcript.view import ConversationView


class MessageActions:
    """Acts on messages.

    Args:
        host: runs the work, asks, and has the clipboard.
        talk: the open chat.
        view: the messages, with the cursor on one of them.
        renderer: shows another branch.
        draft: where a question is taken up again.
        submission: answers once more.
    """

    def __init__(
        self,
        host: ScreenHost,
        talk: ConversationController,
        view: ConversationView,
        renderer: StreamRenderer,
        draft: ComposerDraft,
        submission: PromptSubmission,
    ) -> None:
        self._host = host
        self._talk = talk
        self._view = view
        self._renderer = renderer
        self._draft = draft
        self._submission = submission

    @property
    def block(self) -> MessageBlock | None:
        """The message under the cursor."""
        return self._view.selected

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
        block = next((one for one in self._view.blocks if one.key == message_id), None)
        number = rest[0] if rest and isinstance(rest[0], int) else 0
        if block is None:
            return
        if kind == "fold":
            self._view.fold(block.key)
        elif kind == "branch":
            self.turn(block, number)
        elif kind == "retry":
            self._submission.again(block.message)
        elif kind == "copy":
            blocks = code_blocks(self._text(block))
            if number < len(blocks):
                self.copy_block(blocks[number])

    def _text(self, block: MessageBlock) -> str:
        answer = self._talk.answer
        if answer is not None and answer.message.id == block.key:
            return answer.content
        return block.message.content

    def copy(self) -> None:
        """Copy the message."""
        if (block := self.block) is not None:
            self._host.copy(self._text(block))
            who = "Question" if block.message.role is Role.USER else "Answer"
            self._host.notify(f"{who} copied.", timeout=3)

    def copy_code(self) -> None:
        """Copy a code block of the message; of several, ask which."""
        if (block := self.block) is None:
            return
        blocks = code_blocks(self._text(block))
        if len(blocks) > 1:
            self._host.ask(self._copy_one_of(blocks))
        elif blocks:
            self.copy_block(blocks[0])
        else:
            self._host.notify("There is no code block in this message.", timeout=3)

    async def _copy_one_of(self, blocks: list[CodeBlock]) -> None:
        if (chosen := await dialog_flows.choose_code(self._host, blocks)) is not None:
            self.copy_block(chosen)

    def copy_block(self, block: CodeBlock) -> None:
        """Copy code."""
        self._host.copy(block.text)
        self._host.notify("Code copied.", timeout=3)

    def fold(self) -> None:
        """Show or hide the reasoning."""
        if (block := self.block) is not None:
            self._view.fold(block.key)

    def again(self) -> None:
        """Let the answer under the cursor, or the one to the question there, be written again."""
        if (block := self.block) is None:
            return
        blocks = self._view.blocks
        place = blocks.index(block)
        if block.message.role is Role.USER and place + 1 < len(blocks):
            block = blocks[place + 1]
        self._submission.again(block.message)

    def edit(self) -> None:
        """Take the question under the cursor, or the one above it, up again."""
        if (block := self.block) is not None and (question := self._question(block)) is not None:
            questions = questions_in(self._view.messages)
            self._draft.edit(question, questions.index(question))
            self._draft.focus()

    def _question(self, block: MessageBlock) -> Message | None:
        blocks = self._view.blocks
        found = questions_in([one.message for one in blocks[: blocks.index(block) + 1]])
        return found[0] if found else None

    def turn(self, block: MessageBlock, way: int) -> None:
        """Show the branch before (-1) or after (1)."""
        if self._talk.answer is not None:
            self._host.notify("An answer is being written; esc stops it.", timeout=4)
        else:
            work = partial(self._turn, block.message, way)
            self._host.start("branch", work, alone=True)

    async def _turn(self, message: Message, way: int) -> None:
        try:
            shown = await self._talk.select_branch(message, way)
            self._renderer.show(await self._talk.reload(self._renderer.count), keep=True)
            self._view.select(shown)
        except OpError as error:
            self._host.tell_error(error)

    def read_more(self) -> None:
        """Read earlier messages."""
        blocks = self._view.blocks
        if self._renderer.more and blocks and self._talk.saved:
            self._renderer.more = False
            work = partial(self._read_more, blocks[0].key)
            self._host.start("more", work, alone=True)

    async def _read_more(self, before: int) -> None:
        view = self._view
        try:
            found = await self._talk.messages_before(before)
        except OpError as error:
            self._host.tell_error(error)
            return
        if view.blocks and view.blocks[0].key == before:
            view.prepend(found)
            self._renderer.more = len(found) >= WINDOW
