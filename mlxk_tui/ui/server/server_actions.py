"""Actions on the server, for the pane and the screen over it: settings, API keys, model, copy."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from mlxk_tui.engine.status import EngineState
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.server.http.keys import missing_key_error
from mlxk_tui.server.options import ServerOptions, beyond_loopback
from mlxk_tui.services.conversation import models
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.ui.inspector.model_actions import copy_text, notify_error, run_dialog
from mlxk_tui.ui.server.side_panel import KEYS, REQUEST, SidePanel, SidePanelState
from mlxk_tui.ui.server.snippets import Snippet, snippets
from mlxk_tui.ui.server.status_text import cause
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.widgets.error_text import error_text

if TYPE_CHECKING:
    from mlxk_tui.server.request_log import RequestEntry

Host = Screen[Any]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KEY_ACTIONS = {"copy_key", "drop_key", "reveal"}
"""Actions on the selected API key."""


# -- content of the tabs ---------------------------------------------------------------------------


def side_panel_state(context: Context, entry: RequestEntry | None) -> SidePanelState:
    """Return the content of the tabs; `entry` is the selected request."""
    server = context.server
    about = (
        error_text(server.keys_problem)
        if server.keys_problem is not None
        else "Set by MLXK_API_KEY. Change it there."
        if server.keys_from_environment
        else "Send as 'Authorization: Bearer KEY'."
        if server.options.api_keys
        else "No key required: any program on this machine can connect."
    )
    hints = [] if server.keys_from_environment or server.keys_problem is not None else [("n", "new")]
    if server.options.api_keys:
        hints += [("d", "delete")] if hints else []
        hints += [("v", "show"), ("Y", "copy")]
    keys = None if server.keys_problem is not None else server.options.api_keys
    return SidePanelState(entry, keys, about, hints, connect(context))


def connect(context: Context) -> tuple[Snippet, ...]:
    """Return the snippets, with the loaded model or the one that would be loaded."""
    server = context.server
    loaded = context.chats.status.model
    name = loaded.name if loaded is not None else server.options.model or models.suggested(context.library)
    entry = models.by_name(context.library, name)
    tokens = loaded.context_length if loaded is not None else entry.model.context_length if entry else None
    return snippets(
        server.url, printable(name or "MODEL"), keyed=bool(server.options.api_keys), context=tokens or None
    )


# -- disabled actions ------------------------------------------------------------------------------


def disabled_reason(context: Context, action: str, side: SidePanel | None) -> str | None:
    """Return why an action is disabled, as a sentence; None if it is enabled."""
    server = context.server
    if action in {*KEY_ACTIONS, "new_key"} and server.keys_problem is not None:
        return error_text(server.keys_problem)
    if action in KEY_ACTIONS and not server.options.api_keys:
        return "No API key yet. Press n to create one."
    if action in {"new_key", "drop_key"} and server.keys_from_environment:
        return "The keys are set by MLXK_API_KEY. Change them there."
    if action == "unload" and context.chats.status.state is not EngineState.READY:
        return "No model loaded."
    if action in {"setup", "model"} and server.phase in {ServerPhase.STARTING, ServerPhase.STOPPING}:
        return "The server is starting or stopping."
    if action == "free_port" and server.free_port is None:
        return "The port is not taken."
    if action == "clear" and not any(not entry.live for entry in server.entries):
        return "No finished requests."
    if action == "copy" and side is not None and side.tab == KEYS:
        return disabled_reason(context, "copy_key", side)
    if action == "model" and not models.chat_models(context.library):
        return "None of the installed models can chat."
    return None


# -- setup -----------------------------------------------------------------------------------------


def edit_setup(host: Host, context: Context, *, field: str = "host") -> None:
    """Ask for host, port and origins, and apply them."""
    run_dialog(host, _edit(host, context, field))


async def _edit(host: Host, context: Context, field: str) -> None:
    from mlxk_tui.ui.server.form import ServerForm

    server = context.server
    server.read_keys()

    def check(options: ServerOptions) -> tuple[bool, str]:
        if beyond_loopback(options.host) and not server.options.api_keys:
            return False, error_text(missing_key_error(options.host))
        moved = (options.host, options.port) != (server.options.host, server.options.port)
        if moved and server.live:
            return True, f"▲ {plural(len(server.live), 'open request')} will be aborted: the address changes."
        return True, "Takes effect immediately." if moved and server.phase is ServerPhase.ON else ""

    filled = await host.app.push_screen_wait(ServerForm(server.options, check, field=field))
    if filled is not None:  # other options may have changed meanwhile
        moved = replace(server.options, host=filled.host, port=filled.port, origins=filled.origins)
        await change(host, context, moved)


async def change(host: Host, context: Context, options: ServerOptions) -> bool:
    """Apply options; show its error, and return whether it succeeded."""
    try:
        await context.server.change(options)
    except OpError as error:
        host.notify(cause(error), severity="error", timeout=12, markup=False)
        return False
    return True


def take_free_port(host: Host, context: Context) -> None:
    """Listen on the next free port and turn the server on."""
    if (port := context.server.free_port) is not None:
        run_dialog(host, _move(host, context, port))


async def _move(host: Host, context: Context, port: int) -> None:
    if await change(host, context, replace(context.server.options, port=port)):
        context.server.toggle()


# -- keys ------------------------------------------------------------------------------------------


def new_key(host: Host, context: Context, side: SidePanel | None) -> None:
    """Ask for a name and create an API key."""
    run_dialog(host, _new_key(host, context, side))


async def _new_key(host: Host, context: Context, side: SidePanel | None) -> None:
    from mlxk_tui.server.http.keys import new_key as make_key
    from mlxk_tui.ui.widgets.choice_dialogs import InputDialog

    server = context.server
    server.read_keys()

    def check(text: str) -> tuple[bool, str]:
        name = text.strip()
        if not _NAME.fullmatch(name):
            return False, "Use up to 64 letters, digits, '.', '_' or '-'."
        if name in server.options.api_keys:
            return False, f"Key '{name}' already exists."
        return True, "Requests without a key will be refused." if not server.options.api_keys else ""

    proposal = next(
        name
        for name in ("default", *(f"key-{number}" for number in range(2, 1000)))
        if name not in server.options.api_keys
    )
    name = await host.app.push_screen_wait(
        InputDialog(
            "New API key",
            "Name of the key, which identifies its client in the list of requests.",
            proposal,
            proceed="Create",
            check=check,
        )
    )
    if name is None:
        return
    name = name.strip()
    api_keys = {**server.options.api_keys, name: make_key()}
    if await change(host, context, replace(server.options, api_keys=api_keys)):
        hint = "Press Y to copy it." if len(api_keys) == 1 else "Press Y in the Keys tab to copy it."
        host.notify(f"Created API key '{name}'. {hint}", markup=False, timeout=6)
        if side is not None and side.is_attached:
            side.open(KEYS)
            side.listed.move_to(name)


def drop_key(host: Host, context: Context, name: str | None) -> None:
    """Delete an API key after a confirmation."""
    if name is not None:
        run_dialog(host, _drop_key(host, context, name))


async def _drop_key(host: Host, context: Context, name: str) -> None:
    from mlxk_tui.ui.widgets.dialogs import ConfirmDialog

    server = context.server
    rest = {other: key for other, key in server.options.api_keys.items() if other != name}
    if not rest and server.keeps_last_key:
        reachable = "is" if beyond_loopback(server.options.host) else "may be"
        host.notify(
            f"Can't delete the only key: {printable(server.options.host)} {reachable} reachable from other "
            "machines. Listen on 127.0.0.1 first (e), or create another key.",
            severity="warning",
            markup=False,
            timeout=8,
        )
        return
    text = (
        f"Programs that use '{name}' will be refused."
        if rest
        else f"'{name}' is the only key. Without one, any program on this machine can connect."
    )
    if await host.app.push_screen_wait(ConfirmDialog("Delete the API key?", text, proceed="Delete")):
        await change(host, context, replace(server.options, api_keys=rest))


# -- model -----------------------------------------------------------------------------------------


def choose_model(host: Host, context: Context) -> None:
    """Ask for a model and load it; it then also answers requests that name none."""
    run_dialog(host, _choose(host, context))


async def _choose(host: Host, context: Context) -> None:
    from mlxk_tui.ui.widgets.choice_dialogs import ChoiceDialog
    from mlxk_tui.ui.widgets.model_options import model_options

    loaded = context.chats.status.model
    current = loaded.name if loaded is not None else context.server.options.model or ""
    name = await host.app.push_screen_wait(
        ChoiceDialog(
            "Model to serve",
            model_options(context.library),
            current=current,
            searchable=True,
            empty="None of the installed models can chat.",
        )
    )
    if name is not None:
        _start_loading(host, context, name)


def _start_loading(host: Host, context: Context, name: str, *, force: bool = False) -> None:
    host.app.run_worker(_load(host, context, name, force), group="server-load", exit_on_error=False)


async def _load(host: Host, context: Context, name: str, force: bool) -> None:
    from mlxk_tui.engine.models import find_runnable

    try:
        await context.chats.engine.load(await find_runnable(context.library.cache, name, force=force))
    except OpError as error:
        if error.type is ErrorType.INSUFFICIENT_MEMORY and not force and host.app.screen is host:
            run_dialog(host, _offer(host, context, name, error))
        else:
            host.notify(cause(error), severity="error", timeout=12, markup=False)
        return
    # Not earlier: with a model that fails to load, requests that name none would fail.
    await change(host, context, replace(context.server.options, model=name))


async def _offer(host: Host, context: Context, name: str, error: OpError) -> None:
    from mlxk_tui.ui.widgets.dialogs import ConfirmDialog

    question = ConfirmDialog("Not enough memory", error_text(error), proceed="Load anyway")
    if await host.app.push_screen_wait(question):
        _start_loading(host, context, name, force=True)


def unload_model(host: Host, context: Context) -> None:
    """Unload the model once its answers have ended."""
    host.app.run_worker(_unload(host, context), group="server-load", exit_on_error=False)


async def _unload(host: Host, context: Context) -> None:
    try:
        await context.chats.engine.unload()
    except OpError as error:
        notify_error(host, error)


# -- copy ------------------------------------------------------------------------------------------


def copy_address(host: Host, context: Context) -> None:
    """Copy the base URL for OpenAI clients."""
    copy_text(host, f"{context.server.url}/v1", "Base URL")


def copy_key(host: Host, context: Context, name: str | None) -> None:
    """Copy an API key; the notification does not show it."""
    keys = context.server.options.api_keys
    name = name if name in keys else next(iter(keys), None)
    if name is not None:
        host.app.copy_to_clipboard(keys[name])
        host.notify(f"API key '{name}' copied.", markup=False, timeout=3)


def copy_shown(host: Host, context: Context, side: SidePanel, entry: RequestEntry | None) -> None:
    """Copy the content of the open tab."""
    if side.tab == KEYS:
        copy_key(host, context, side.key_name)
    elif side.tab == REQUEST:
        if entry is not None:
            parts = [entry.id, *([f"{entry.error_type}: {entry.error}"] if entry.error else [])]
            copy_text(host, printable(" ".join(parts)), "Request")
    elif (snippet := side.snippet) is not None:
        host.app.copy_to_clipboard(snippet.text)
        host.notify(f"{snippet.title} snippet copied.", markup=False, timeout=3)
