"""Drafts without the Chat pane: one per chat, with files and the edited prompt."""

from __future__ import annotations

from pathlib import Path

from textual.app import App, ComposeResult

from mlxk_tui.chats.model import Attachment
from mlxk_tui.ui.chat.attachments import MAX_FILES, AttachmentBar
from mlxk_tui.ui.chat.composer import Composer
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.prompt_submission import ComposerDraft


class Writing(App[None]):
    """The two widgets of a draft."""

    def __init__(self) -> None:
        super().__init__()
        self.chat = 1

    def compose(self) -> ComposeResult:
        yield AttachmentBar()
        yield Composer()

    def draft(self) -> ComposerDraft:
        return ComposerDraft(
            ScreenHost(self.screen),
            self.query_one(Composer),
            self.query_one(AttachmentBar),
            lambda: self.chat,
            lambda: None,
        )


async def test_each_chat_has_its_own_draft() -> None:
    app = Writing()
    async with app.run_test():
        draft, composer = app.draft(), app.query_one(Composer)
        composer.set_text("for the first")
        draft.attach_paste("a long text")
        draft.stash()
        app.chat = 2
        draft.restore()
        assert (composer.text, draft.attachments, draft.unsent()) == ("", [], 1)
        draft.stash()
        app.chat = 1
        draft.restore()
        assert composer.text == "for the first"
        assert draft.attachments == [Attachment("pasted-1.txt", "a long text")]


async def test_too_many_files_and_binary_files_are_reported(tmp_path: Path) -> None:
    app = Writing()
    paths = [tmp_path / f"{number}.txt" for number in range(MAX_FILES + 1)]
    for path in paths:
        path.write_text(path.name)
    (tmp_path / "picture").write_bytes(b"\xff\0")
    async with app.run_test() as pilot:
        draft = app.draft()
        await draft.attach_files([str(tmp_path / "picture"), *map(str, paths)])
        assert [one.name for one in draft.attachments] == [path.name for path in paths[:MAX_FILES]]
        await pilot.pause()
        no_text, too_many = (notice.message for notice in app._notifications)
        assert "picture is not UTF-8 text" in no_text
        assert f"{MAX_FILES} files" in too_many
