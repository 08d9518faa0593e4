"""Actions on the messages of the open chat: copy, fold, regenerate, edit, switch branch."""

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
    """Actions on the message under the cursor.

    Args:
        host: runs workers and dialogs, and has the clipboard.
        controller: the open chat.
        view: the messages and the cursor.
        renderer: shows another branch.
        draft: receives a message to edit.
        submission: generates answers again.
    """

    def __init__(
        self,
        host: ScreenHost,
        controller: ConversationController,
        view: ConversationView,
        renderer: StreamRenderer,
        draft: ComposerDraft,
        submission: PromptSubmission,
    ) -> None:
        self._host = host
        self._controller = controller
        self._view = view
        self._renderer = renderer
        self._draft = draft
        self._submission = submission

    @property
    def block(self) -> MessageBlock | None:
        """The message under the cursor."""
        return self._view.selected

    def disabled_reason(self, action: str) -> str | None:
        """Return why an action is disabled for the message under the cursor; None if it is enabled."""
        block = self.block
        if block is None:
            return "No messages yet."
        if action == "edit" and self._user_message(block) is None:
            return "No user message above."
        if action == "fold" and not block.has_reasoning:
            return "No reasoning in this message."
        if action == "copy_code" and not self._has_code(block):
            return "No code block in this message."
        if action == "branch" and block.message.siblings < 2:
            return "This message has no other branches."
        return None

    def _has_code(self, block: MessageBlock) -> bool:
        text = block.message.content
        return block.live is not None or "```" in text or "~~~" in text

    def run_link(self, link: tuple[object, ...]) -> None:
        """Run the action of a link inside a message, such as `('fold', id)`."""
        kind, message_id, *rest = link
        block = next((block for block in self._view.blocks if block.key == message_id), None)
        number = rest[0] if rest and isinstance(rest[0], int) else 0
        if block is None:
            return
        if kind == "fold":
            self._view.fold(block.key)
        elif kind == "branch":
            self.switch_branch(block, number)
        elif kind == "retry":
            self._submission.regenerate(block.message)
        elif kind == "copy":
            blocks = code_blocks(self._text(block))
            if number < len(blocks):
                self.copy_block(blocks[number])

    def _text(self, block: MessageBlock) -> str:
        answer = self._controller.answer
        if answer is not None and answer.message.id == block.key:
            return answer.content
        return block.message.content

    def copy(self) -> None:
        if (block := self.block) is not None:
            self._host.copy(self._text(block))
            what = "Message" if block.message.role is Role.USER else "Answer"
            self._host.notify(f"{what} copied.", timeout=3)

    def copy_code(self) -> None:
        """Copy a code block of the message; ask which one if there are several."""
        if (block := self.block) is None:
            return
        blocks = code_blocks(self._text(block))
        if len(blocks) > 1:
            self._host.run_dialog(self._copy_one_of(blocks))
        elif blocks:
            self.copy_block(blocks[0])
        else:
            self._host.notify("No code block in this message.", timeout=3)

    async def _copy_one_of(self, blocks: list[CodeBlock]) -> None:
        if (chosen := await dialog_flows.choose_code(self._host, blocks)) is not None:
            self.copy_block(chosen)

    def copy_block(self, block: CodeBlock) -> None:
        self._host.copy(block.text)
        self._host.notify("Code copied.", timeout=3)

    def fold(self) -> None:
        if (block := self.block) is not None:
            self._view.fold(block.key)

    def regenerate(self) -> None:
        """Regenerate the answer under the cursor, or the answer to the user message under it."""
        if (block := self.block) is None:
            return
        blocks = self._view.blocks
        index = blocks.index(block)
        if block.message.role is Role.USER and index + 1 < len(blocks):
            block = blocks[index + 1]
        self._submission.regenerate(block.message)

    def edit(self) -> None:
        """Edit the user message under the cursor, or the one above it."""
        if (block := self.block) is not None and (message := self._user_message(block)) is not None:
            self._draft.edit(message, questions_in(self._view.messages).index(message))
            self._draft.focus()

    def _user_message(self, block: MessageBlock) -> Message | None:
        blocks = self._view.blocks
        found = questions_in([each.message for each in blocks[: blocks.index(block) + 1]])
        return found[0] if found else None

    def switch_branch(self, block: MessageBlock, direction: int) -> None:
        """Show the previous (-1) or next (1) branch."""
        if self._controller.answer is not None:
            self._host.notify("An answer is in progress. Press esc to stop it.", timeout=4)
        else:
            work = partial(self._switch_branch, block.message, direction)
            self._host.start("branch", work, exclusive=True)

    async def _switch_branch(self, message: Message, direction: int) -> None:
        try:
            shown = await self._controller.select_branch(message, direction)
            self._renderer.show(await self._controller.reload(self._renderer.count), keep_position=True)
            self._view.select(shown)
        except OpError as error:
            self._host.notify_error(error)

    def load_earlier(self) -> None:
        """Load the messages above the first one, if there are any."""
        blocks = self._view.blocks
        if self._renderer.has_earlier and blocks and self._controller.saved:
            self._renderer.has_earlier = False
            work = partial(self._load_earlier, blocks[0].key)
            self._host.start("more", work, exclusive=True)

    async def _load_earlier(self, before: int) -> None:
        view = self._view
        try:
            found = await self._controller.messages_before(before)
        except OpError as error:
            self._host.notify_error(error)
            return
        if view.blocks and view.blocks[0].key == before:
            view.prepend(found)
            self._renderer.has_earlier = len(found) >= WINDOW
