"""What can be done with the server, from the pane or from the screen over it: set up, keys, model, copy."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual.screen import Screen

from mlxk_tui.engine.status import EngineState
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import plural, printable
from mlxk_tui.server.http.keys import needs_key
from mlxk_tui.server.options import ServerOptions, beyond_loopback
from mlxk_tui.services.conversation import models
from mlxk_tui.services.server.control import ServerPhase
from mlxk_tui.ui.inspector.model_actions import ask, copy_text, tell_error
from mlxk_tui.ui.server.side_panel import KEYS, REQUEST, ServerSide, Shown
from mlxk_tui.ui.server.snippets import Snippet, snippets
from mlxk_tui.ui.server.status_text import cause
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.widgets.error_text import error_text

if TYPE_CHECKING:
    from mlxk_tui.server.request_log import RequestEntry

Host = Screen[Any]
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
OF_KEYS = {"copy_key", "drop_key", "reveal"}


# -- what is shown ---------------------------------------------------------------------------------


def shown(context: Context, entry: RequestEntry | None) -> Shown:
    """Return what the tabs show now."""
    server = context.server
    about = (
        error_text(server.keys_problem)
        if server.keys_problem is not None
        else "From MLXK_API_KEY; another one is given there."
        if server.keys_from_environment
        else "Sent as 'Authorization: Bearer KEY'."
        if server.options.api_keys
        else "None is asked for: every program on this machine may call."
    )
    hints = [] if server.keys_from_environment or server.keys_problem is not None else [("n", "new")]
    if server.options.api_keys:
        hints += [("d", "delete")] if hints else []
        hints += [("v", "show"), ("Y", "copy")]
    keys = None if server.keys_problem is not None else server.options.api_keys
    return Shown(entry, keys, about, hints, connect(context))


def connect(context: Context) -> tuple[Snippet, ...]:
    """Return the snippets for the model that is loaded, or would be."""
    server = context.server
    loaded = context.chats.status.model
    name = loaded.name if loaded is not None else server.options.model or models.suggested(context.library)
    entry = models.by_name(context.library, name)
    tokens = loaded.context_length if loaded is not None else entry.model.context_length if entry else None
    return snippets(
        server.url, printable(name or "MODEL"), keyed=bool(server.options.api_keys), context=tokens or None
    )


# -- why not ---------------------------------------------------------------------------------------


def why_not(context: Context, action: str, side: ServerSide | None) -> str | None:
    """Return why an action is not possible now, as a sentence; None where it is."""
    server = context.server
    if action in {*OF_KEYS, "new_key"} and server.keys_problem is not None:
        return error_text(server.keys_problem)
    if action in OF_KEYS and not server.options.api_keys:
        return "There is no API key; n makes one."
    if action in {"new_key", "drop_key"} and server.keys_from_environment:
        return "The keys come from MLXK_API_KEY and are changed there."
    if action == "unload" and context.chats.status.state is not EngineState.READY:
        return "No model is loaded."
    if action in {"setup", "model"} and server.phase in {ServerPhase.STARTING, ServerPhase.STOPPING}:
        return "The server is just being switched."
    if action == "free_port" and server.free_port is None:
        return "No port is asked for."
    if action == "clear" and not any(not entry.live for entry in server.entries):
        return "No request has ended."
    if action == "copy" and side is not None and side.tab == KEYS:
        return why_not(context, "copy_key", side)
    if action == "model" and not models.chat_models(context.library):
        return "None of the models here can answer."
    return None


# -- setup -----------------------------------------------------------------------------------------


def edit_setup(host: Host, context: Context, *, field: str = "host") -> None:
    """Ask where to listen, and do so."""
    ask(host, _edit(host, context, field))


async def _edit(host: Host, context: Context, field: str) -> None:
    from mlxk_tui.ui.server.form import ServerForm

    server = context.server
    server.read_keys()

    def check(options: ServerOptions) -> tuple[bool, str]:
        if beyond_loopback(options.host) and not server.options.api_keys:
            return False, error_text(needs_key(options.host))
        moved = (options.host, options.port) != (server.options.host, server.options.port)
        if moved and server.live:
            return True, f"▲ {plural(len(server.live), 'open request')} will be cut: the server moves."
        return True, "The server moves there at once." if moved and server.phase is ServerPhase.ON else ""

    filled = await host.app.push_screen_wait(ServerForm(server.options, check, field=field))
    if filled is not None:  # other options may have changed meanwhile
        moved = replace(server.options, host=filled.host, port=filled.port, origins=filled.origins)
        await change(host, context, moved)


async def change(host: Host, context: Context, options: ServerOptions) -> bool:
    """Use other options; notify of a failure, and return whether it worked."""
    try:
        await context.server.change(options)
    except OpError as error:
        host.notify(cause(error), severity="error", timeout=12, markup=False)
        return False
    return True


def take_free_port(host: Host, context: Context) -> None:
    """Listen on the next free port."""
    if (port := context.server.free_port) is not None:
        ask(host, _move(host, context, port))


async def _move(host: Host, context: Context, port: int) -> None:
    if await change(host, context, replace(context.server.options, port=port)):
        context.server.toggle()


# -- keys ------------------------------------------------------------------------------------------


def new_key(host: Host, context: Context, side: ServerSide | None) -> None:
    """Ask for a name and make a key."""
    ask(host, _new_key(host, context, side))


async def _new_key(host: Host, context: Context, side: ServerSide | None) -> None:
    from mlxk_tui.server.http.keys import new_key as make_key
    from mlxk_tui.ui.widgets.choice_dialogs import LineDialog

    server = context.server
    server.read_keys()

    def check(text: str) -> tuple[bool, str]:
        name = text.strip()
        if not _NAME.fullmatch(name):
            return False, "A name has letters, digits, '.', '_' and '-', at most 64."
        if name in server.options.api_keys:
            return False, f"There is a key '{name}' already."
        first = not server.options.api_keys
        return True, "Whoever calls without a key is refused from now on." if first else ""

    proposal = next(
        name
        for name in ("default", *(f"key-{number}" for number in range(2, 1000)))
        if name not in server.options.api_keys
    )
    name = await host.app.push_screen_wait(
        LineDialog(
            "New API key",
            "What it is for; the requests that come with it are listed by this name.",
            proposal,
            proceed="Make it",
            check=check,
        )
    )
    if name is None:
        return
    name = name.strip()
    api_keys = {**server.options.api_keys, name: make_key()}
    if await change(host, context, replace(server.options, api_keys=api_keys)):
        copied = "Y copies it" if len(server.options.api_keys) == 1 else "Y in the list of keys copies it"
        host.notify(f"The API key '{name}' is made; {copied}.", markup=False, timeout=6)
        if side is not None and side.is_attached:
            side.open(KEYS)
            side.listed.move_to(name)


def drop_key(host: Host, context: Context, name: str | None) -> None:
    """Ask whether a key is to go, and delete it."""
    if name is not None:
        ask(host, _drop_key(host, context, name))


async def _drop_key(host: Host, context: Context, name: str) -> None:
    from mlxk_tui.ui.widgets.dialogs import QuestionDialog

    server = context.server
    rest = {kept: key for kept, key in server.options.api_keys.items() if kept != name}
    if not rest and server.keeps_last_key:
        lets = "lets" if beyond_loopback(server.options.host) else "may let"
        host.notify(
            f"This is the only key, and {printable(server.options.host)} {lets} other machines in. Listen on "
            "127.0.0.1 first (e), or make another key.",
            severity="warning",
            markup=False,
            timeout=8,
        )
        return
    text = (
        f"Programs that use '{name}' are refused from now on."
        if rest
        else f"'{name}' is the only key: without one, every program on this machine may call."
    )
    if await host.app.push_screen_wait(QuestionDialog("Delete the API key?", text, proceed="Delete")):
        await change(host, context, replace(server.options, api_keys=rest))


# -- model -----------------------------------------------------------------------------------------


def choose_model(host: Host, context: Context) -> None:
    """Ask for a model, load it, and let it answer requests that name none."""
    ask(host, _choose(host, context))


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
            words=True,
            empty="None of the models here can answer.",
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
            ask(host, _offer(host, context, name, error))
        else:
            host.notify(cause(error), severity="error", timeout=12, markup=False)
        return
    # Not earlier: a model that cannot be loaded would keep requests that name none from any answer.
    await change(host, context, replace(context.server.options, model=name))


async def _offer(host: Host, context: Context, name: str, error: OpError) -> None:
    from mlxk_tui.ui.widgets.dialogs import QuestionDialog

    question = QuestionDialog("Not enough memory", error_text(error), proceed="Load anyway")
    if await host.app.push_screen_wait(question):
        _start_loading(host, context, name, force=True)


def unload_model(host: Host, context: Context) -> None:
    """Free the model once its answers have ended."""
    host.app.run_worker(_unload(host, context), group="server-load", exit_on_error=False)


async def _unload(host: Host, context: Context) -> None:
    try:
        await context.chats.engine.unload()
    except OpError as error:
        tell_error(host, error)


# -- copy ------------------------------------------------------------------------------------------


def copy_address(host: Host, context: Context) -> None:
    """Copy the base URL that OpenAI's clients take."""
    copy_text(host, f"{context.server.url}/v1", "Address")


def copy_key(host: Host, context: Context, name: str | None) -> None:
    """Copy a key; what is said does not show it."""
    keys = context.server.options.api_keys
    name = name if name in keys else next(iter(keys), None)
    if name is not None:
        host.app.copy_to_clipboard(keys[name])
        host.notify(f"API key '{name}' copied.", markup=False, timeout=3)


def copy_shown(host: Host, context: Context, side: ServerSide, entry: RequestEntry | None) -> None:
    """Copy what the open tab shows."""
    if side.tab == KEYS:
        copy_key(host, context, side.key_name)
    elif side.tab == REQUEST:
        if entry is not None:
            parts = [entry.id, *([f"{entry.error_type}: {entry.error}"] if entry.error else [])]
            copy_text(host, printable(" ".join(parts)), "Request")
    elif (snippet := side.snippet) is not None:
        host.app.copy_to_clipboard(snippet.text)
        host.notify(f"{snippet.title}: snippet copied.", markup=False, timeout=3)
