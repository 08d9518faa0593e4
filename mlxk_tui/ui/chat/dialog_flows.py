"""What the Chat pane asks in dialogs: titles, files, models, settings, code blocks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxk_tui.chats.export import export_json, export_markdown, suggested_name
from mlxk_tui.chats.model import Listed
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.services.conversation.controller import ConversationController
from mlxk_tui.services.conversation.models import draft_name
from mlxk_tui.services.conversation.request import (
    MAX_VOCABULARY,
    ChatSettings,
    draft_of,
    kv_bits_of,
    sampling_of,
)
from mlxk_tui.ui.chat.host import ScreenHost
from mlxk_tui.ui.chat.settings_form import SettingsDialog
from mlxk_tui.ui.chat.transcript.markdown_pieces import CodeBlock
from mlxk_tui.ui.widgets.choice_dialogs import ChoiceDialog, LineDialog, Option
from mlxk_tui.ui.widgets.dialogs import QuestionDialog
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.model_options import model_options


async def rename(host: ScreenHost, talk: ConversationController, listed: Listed) -> bool:
    """Ask for another title; return whether one was given."""
    session = listed.session
    typed = await host.answer_to(
        LineDialog(
            "Rename the chat",
            "Empty takes the first question again.",
            printable(session.title),
            proceed="Rename",
        )
    )
    if typed is None:
        return False
    await talk.store.rename_session(session.id, typed)
    return True


async def export(host: ScreenHost, talk: ConversationController) -> None:
    """Ask for a file and write the chat to it."""
    session = talk.session
    typed: str | None = os.path.join(os.curdir, suggested_name(session, ".md"))
    while typed is not None:
        typed = await host.answer_to(
            LineDialog(
                "Export the chat",
                ".md is the shown conversation as Markdown, .json all branches.",
                typed,
                proceed="Export",
                check=_export_target,
            )
        )
        if typed is None:
            return
        path = _absolute(typed)
        overwrite = False
        if await asyncio.to_thread(os.path.lexists, path):
            name = printable(path.name)
            text = f"{name} is there already and would be replaced."
            question = QuestionDialog("Replace the file?", text, proceed="Replace")
            overwrite = await host.answer_to(question)
            if not overwrite:
                continue
        write = export_json if path.suffix.lower() == ".json" else export_markdown
        try:
            await write(talk.store, session.id, path, overwrite=overwrite)
        except OpError as error:
            host.tell_error(error)
            continue
        host.notify(f"Exported to {printable(str(path))}.")
        return


def _absolute(typed: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(typed.strip())))


def _export_target(typed: str) -> tuple[bool, str]:
    if not typed.strip():
        return False, "Give a file."
    if "\0" in typed:
        return False, "A path cannot hold a NUL character."
    path = _absolute(typed)
    if path.suffix.lower() not in {".md", ".markdown", ".json"}:
        return False, "The name must end in .md or .json."
    if path.is_dir():
        return False, f"{printable(path.name)} is a folder."
    if not path.parent.is_dir():
        return False, f"There is no folder {printable(str(path.parent))}."
    if path.exists():
        return True, f"▲ {printable(path.name)} is there already; you will be asked."
    return True, f"→ {printable(str(path))}"


async def file_to_attach(host: ScreenHost) -> str | None:
    """Ask for a text file; return its absolute path."""
    typed = await host.answer_to(
        LineDialog(
            "Attach a text file", "It is sent with the next question.", "", proceed="Attach", check=_source
        )
    )
    return None if typed is None else str(_absolute(typed))


def _source(typed: str) -> tuple[bool, str]:
    if not typed.strip():
        return False, "Give a file; @path in the question does the same."
    if "\0" in typed or not os.path.isfile(_absolute(typed)):
        return False, "There is no such file."
    return True, f"→ {printable(str(_absolute(typed)))}"


async def choose_model(host: ScreenHost, talk: ConversationController, changed: Callable[[], None]) -> None:
    """Ask who answers next."""
    chosen = await host.answer_to(
        ChoiceDialog(
            "Who answers next",
            model_options(talk.library),
            current=talk.session.model or "",
            words=True,
            empty="No model of the cache can answer here.",
        )
    )
    if chosen is not None:
        await talk.use_model(chosen)
        changed()


async def change_settings(
    host: ScreenHost, talk: ConversationController, changed: Callable[[], None]
) -> None:
    """Ask how the chat is answered."""
    session = talk.session
    loaded = talk.backend.status.model
    same = loaded is not None and loaded.name == session.model
    vocabulary = loaded.vocab_size if loaded is not None and same else MAX_VOCABULARY

    def check(values: Mapping[str, Any]) -> None:
        sampling_of(values, vocabulary)
        kv_bits_of(values)
        if (draft := draft_of(values)) is not None:
            draft_name(talk.library, draft)

    present = ChatSettings(session.system, session.settings)
    model = printable(session.model or "")
    chosen = await host.answer_to(SettingsDialog(present, check, model))
    if chosen is not None:
        if (draft := draft_of(chosen.values)) is not None:
            with suppress(OpError):  # it went this moment: asking says so
                name = draft_name(talk.library, draft)
                chosen = replace(chosen, values={**chosen.values, "draft_model": name})
        await talk.use_settings(chosen)
        changed()


async def choose_code(host: ScreenHost, blocks: list[CodeBlock]) -> CodeBlock | None:
    """Ask which code block is meant."""
    lines = [next((line for line in block.text.split("\n") if line.strip()), "") for block in blocks]
    chosen = await host.answer_to(
        ChoiceDialog(
            "Copy a code block",
            [
                Option(
                    str(number),
                    printable(line.strip())[:200] or "(empty)",
                    f"{printable(block.language)[:20]}  {plural(block.text.count(chr(10)) + 1, 'line')}",
                )
                for number, (block, line) in enumerate(zip(blocks, lines, strict=True))
            ],
        )
    )
    return None if chosen is None else blocks[int(chosen)]


async def offer_force(host: ScreenHost, error: OpError) -> bool:
    """Tell that a model is too large, with the numbers, and ask whether it is loaded all the same."""
    question = QuestionDialog("Not enough memory", error_text(error), proceed="Load anyway")
    return await host.answer_to(question)
