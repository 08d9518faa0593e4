"""Dialogs of the Chat pane: title, export, attachment, model, settings, code block."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlxk_tui.chats.export import export_json, export_markdown, suggested_name
from mlxk_tui.chats.model import SessionListItem
from mlxk_tui.engine import sampling
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.services.conversation import models
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
from mlxk_tui.ui.widgets.choice_dialogs import ChoiceDialog, InputDialog, Option
from mlxk_tui.ui.widgets.dialogs import ConfirmDialog
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.model_options import model_options


async def rename(host: ScreenHost, controller: ConversationController, listed: SessionListItem) -> bool:
    """Ask for a title and rename the chat; return whether it was renamed."""
    session = listed.session
    typed = await host.show_dialog(
        InputDialog(
            "Rename chat",
            "Leave blank to use the first message.",
            printable(session.title),
            proceed="Rename",
        )
    )
    if typed is None:
        return False
    await controller.store.rename_session(session.id, typed)
    return True


async def export(host: ScreenHost, controller: ConversationController) -> None:
    """Ask for a file and export the chat to it."""
    session = controller.session
    typed: str | None = os.path.join(os.curdir, suggested_name(session, ".md"))
    while typed is not None:
        typed = await host.show_dialog(
            InputDialog(
                "Export chat",
                ".md: this branch as Markdown. .json: all branches.",
                typed,
                proceed="Export",
                check=_check_export_target,
            )
        )
        if typed is None:
            return
        path = _absolute(typed)
        overwrite = False
        if await asyncio.to_thread(os.path.lexists, path):
            name = printable(path.name)
            text = f"{name} already exists and will be replaced."
            overwrite = await host.show_dialog(ConfirmDialog("Replace the file?", text, proceed="Replace"))
            if not overwrite:
                continue
        write = export_json if path.suffix.lower() == ".json" else export_markdown
        try:
            await write(controller.store, session.id, path, overwrite=overwrite)
        except OpError as error:
            host.notify_error(error)
            continue
        host.notify(f"Exported to {printable(str(path))}.")
        return


def _absolute(typed: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(typed.strip())))


def _check_export_target(typed: str) -> tuple[bool, str]:
    if not typed.strip():
        return False, "Enter a file."
    if "\0" in typed:
        return False, "A path can't contain a NUL character."
    path = _absolute(typed)
    if path.suffix.lower() not in {".md", ".markdown", ".json"}:
        return False, "The name must end in .md or .json."
    if path.is_dir():
        return False, f"{printable(path.name)} is a folder."
    if not path.parent.is_dir():
        return False, f"No such folder: {printable(str(path.parent))}"
    if path.exists():
        return True, f"▲ {printable(path.name)} already exists (asks before replacing it)"
    return True, f"→ {printable(str(path))}"


async def file_to_attach(host: ScreenHost) -> str | None:
    """Ask for a text file; return its absolute path, or None if cancelled."""
    typed = await host.show_dialog(
        InputDialog(
            "Attach a text file",
            "Sent with your next message.",
            "",
            proceed="Attach",
            check=_check_attachment,
        )
    )
    return None if typed is None else str(_absolute(typed))


def _check_attachment(typed: str) -> tuple[bool, str]:
    if not typed.strip():
        return False, "Enter a file. You can also type @path in the message."
    if "\0" in typed or not os.path.isfile(_absolute(typed)):
        return False, "No such file."
    return True, f"→ {printable(str(_absolute(typed)))}"


async def choose_model(
    host: ScreenHost, controller: ConversationController, changed: Callable[[], None]
) -> None:
    """Ask for the model of the next answers."""
    chosen = await host.show_dialog(
        ChoiceDialog(
            "Switch model",
            model_options(controller.library),
            current=controller.session.model or "",
            searchable=True,
            empty="None of the installed models can chat.",
        )
    )
    if chosen is not None:
        await controller.use_model(chosen)
        changed()


async def change_settings(
    host: ScreenHost, controller: ConversationController, changed: Callable[[], None]
) -> None:
    """Ask for the settings of the chat."""
    session = controller.session
    loaded = controller.backend.status.model
    same = loaded is not None and loaded.name == session.model
    vocabulary = loaded.vocab_size if loaded is not None and same else MAX_VOCABULARY

    def check(values: Mapping[str, Any]) -> None:
        sampling_of(values, vocabulary)
        kv_bits_of(values)
        if (draft := draft_of(values)) is not None:
            draft_name(controller.library, draft)

    present = ChatSettings(session.system, session.settings)
    dialog = SettingsDialog(present, check, partial(_sampling_defaults, controller))
    chosen = await host.show_dialog(dialog)
    if chosen is not None:
        if (draft := draft_of(chosen.values)) is not None:
            with suppress(OpError):  # removed this moment: the next answer reports it
                name = draft_name(controller.library, draft)
                chosen = replace(chosen, values={**chosen.values, "draft_model": name})
        await controller.use_settings(chosen)
        changed()


async def _sampling_defaults(controller: ConversationController) -> dict[str, Any]:
    """Return the sampling values that the chat's model recommends in its generation_config.json."""
    from mlxk_tui.ops.catalog.show import read_generation_config

    entry = models.by_name(controller.library, controller.session.model)
    if entry is None:
        return {}
    try:
        config = await read_generation_config(controller.library.cache, entry.report.ref)
    except OpError:  # removed this moment
        return {}
    defaults = asdict(sampling.default_sampling(config))
    return {name: value for name, value in defaults.items() if value is not None}


async def choose_code(host: ScreenHost, blocks: list[CodeBlock]) -> CodeBlock | None:
    """Ask for one of several code blocks; return None if cancelled."""
    lines = [next((line for line in block.text.split("\n") if line.strip()), "") for block in blocks]
    chosen = await host.show_dialog(
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
    """Show that a model is too large; return whether it is to be loaded anyway."""
    dialog = ConfirmDialog("Not enough memory", error_text(error), proceed="Load anyway")
    return await host.show_dialog(dialog)
