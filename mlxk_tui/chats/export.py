"""Export of chats to Markdown and JSON files, and import from JSON."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlxk_tui.chats.model import Message, MessageState, Role, Session
from mlxk_tui.chats.store import ChatStore
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.files import replace_file
from mlxk_tui.ops.core.os_errors import error_reason, error_type
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import format_size, iso_utc, printable

_MAX_IMPORT_BYTES = 64_000_000
_NAME_BYTES = 100


def suggested_name(session: Session, suffix: str) -> str:
    """Return a file name with the date and title of a chat: `2026-01-31-hello.md`.

    It contains only letters, digits (of any script) and hyphens, so it is valid on every file system.
    """
    day = time.strftime("%Y-%m-%d", time.gmtime(session.created))
    words = re.sub(r"[\W_]+", "-", unicodedata.normalize("NFC", session.title)).strip("-").lower()
    short = words.encode()[:_NAME_BYTES].decode(errors="ignore").strip("-")
    return f"{day}-{short or f'chat-{session.id}'}{suffix}"


async def export_markdown(store: ChatStore, session_id: int, path: Path, *, overwrite: bool = False) -> Path:
    """Write the selected branch as Markdown.

    Raises:
        OpError: the file already exists (`validation_error`) or can't be written.
    """
    session = await store.session(session_id)
    messages = await store.messages(session_id, limit=None)
    await _write(path, markdown(session, messages).encode(), overwrite=overwrite)
    return path


async def export_json(store: ChatStore, session_id: int, path: Path, *, overwrite: bool = False) -> Path:
    """Write a chat with all its branches as JSON, in the format of `document`.

    Raises:
        OpError: the file already exists (`validation_error`) or can't be written.
    """
    session, messages = await store.full_session(session_id)

    def serialize() -> bytes:
        from mlxk_tui.chats.document import to_document  # importing pydantic takes 0.1 s

        return to_document(session, messages).model_dump_json(indent=2).encode() + b"\n"

    await _write(path, await asyncio.to_thread(serialize), overwrite=overwrite)
    return path


async def import_json(store: ChatStore, path: Path) -> Session:
    """Import a chat that `export_json` wrote, as a new session.

    Raises:
        OpError: `validation_error` if the file isn't an exported chat, or is larger than 64 MB.
    """

    def read() -> tuple[Session, list[Message]]:
        from mlxk_tui.chats.document import parse_document  # importing pydantic takes 0.1 s
        from mlxk_tui.ops.core.files import read_bytes

        data = read_bytes(os.fspath(path), _MAX_IMPORT_BYTES)
        if data is None:
            raise OpError(ErrorType.VALIDATION_ERROR, "The file can't be read.", remedy=Remedy.CHOOSE_FILE)
        if len(data) > _MAX_IMPORT_BYTES:
            raise OpError(
                ErrorType.VALIDATION_ERROR,
                f"The file is larger than {format_size(_MAX_IMPORT_BYTES)}, the limit for exported chats.",
                remedy=Remedy.CHOOSE_FILE,
            )
        return parse_document(data)

    session, messages = await asyncio.to_thread(read)
    return await store.import_session(session, messages)


def markdown(session: Session, messages: Sequence[Message]) -> str:
    """Return a conversation as Markdown, without control characters.

    The text of messages is not escaped. Reasoning is in a `<details>` block; attachments and tool calls are
    in fenced code blocks.
    """
    parts = [f"# {printable(session.title) or 'Chat'}"]
    about = [iso_utc(session.created) or "", f"model {printable(session.model)}" if session.model else ""]
    parts.append(" · ".join(filter(None, about)))
    if session.system:
        parts.append("\n".join(f"> {line}" for line in _safe(session.system).splitlines()))
    for message in messages:
        parts.extend(_message_parts(message))
    return "\n\n".join(parts) + "\n"


def _message_parts(message: Message) -> Iterator[str]:
    name = {Role.USER: "You", Role.SYSTEM: "System", Role.TOOL: "Tool"}.get(message.role)
    yield f"## {name or printable(message.model or 'Assistant')}"
    if message.reasoning.strip():
        yield f"<details><summary>Reasoning</summary>\n\n{_safe(message.reasoning).strip()}\n\n</details>"
    for attachment in message.attachments:
        yield f"Attached: {printable(attachment.name)}"
        yield _fenced(_safe(attachment.text))
    if message.content:
        yield _safe(message.content).strip("\n")
    if message.tool_calls:
        yield _fenced(json.dumps([dict(call) for call in message.tool_calls], indent=2), "json")
    if message.state is MessageState.FAILED:
        yield f"*(failed: {printable(message.error or 'unknown reason')})*"
    elif message.state is MessageState.STOPPED:
        yield "*(stopped)*"


def _safe(text: str) -> str:
    return printable(text.replace("\r\n", "\n"), keep_newlines=True)


def _fenced(text: str, language: str = "") -> str:
    """Return a fenced code block, with a fence longer than any in the text."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


async def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file atomically."""

    def write() -> None:
        if not overwrite and os.path.lexists(path):
            shown = printable(path.name)
            raise OpError(
                ErrorType.VALIDATION_ERROR, f"{shown} already exists.", remedy=Remedy.RENAME_OR_REPLACE
            )
        try:
            replace_file(path, data, mode=0o666)
        except OSError as error:
            raise OpError(
                error_type(error) or ErrorType.PERMISSION_DENIED,
                f"{printable(path.name)} can't be written: {error_reason(error)}.",
                remedy=Remedy.CHOOSE_FOLDER,
            ) from error

    await asyncio.to_thread(write)
