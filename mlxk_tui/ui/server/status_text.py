"""The texts of the Server pane: the status panel, problems, and the message in place of requests."""

from __future__ import annotations

from mlxk_tui.engine.status import EngineState, EngineStatus
from mlxk_tui.ops.contract.matrices import BlasState
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import format_size, plural, printable
from mlxk_tui.server.request_log import RequestState
from mlxk_tui.services.server.control import ServerControl, ServerPhase
from mlxk_tui.ui.server.request_text import rate_text
from mlxk_tui.ui.server.status_panel import Fact, Plot, ServerStatus
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.widgets.error_text import WORDS, error_text
from mlxk_tui.ui.widgets.state_view import StateView
from mlxk_tui.ui.widgets.text import Part, sentence, wrap

_WAITING = {RequestState.WAITING, RequestState.LOADING}
_LINE = 68
"""Longest line of a message, in cells."""
SWITCH: dict[ServerPhase, Part] = {
    ServerPhase.OFF: ("○ Off", "$muted"),
    ServerPhase.STARTING: ("· Starting", "$accent"),
    ServerPhase.ON: ("● On", "$good"),
    ServerPhase.STOPPING: ("· Stopping", "$attention"),
}


def status(context: Context) -> ServerStatus:
    """Return the content of the status panel."""
    server = context.server
    keys = server.options.api_keys
    if keys:
        access = f"{plural(len(keys), 'key')}: {', '.join(printable(name) for name in keys)}"
    else:
        access = "none required on this machine"
    origins = server.options.origins
    cors = ", ".join(printable(origin) for origin in origins) if origins else "CORS off"
    return ServerStatus(
        SWITCH[server.phase],
        _address(server),
        (
            _model(context),
            Fact("Keys", access, "" if keys else "$muted"),
            Fact("Origins", cors, "" if origins else "$muted"),
        ),
        _plots(server) if server.phase is ServerPhase.ON else (),
    )


def _address(server: ServerControl) -> str:
    if server.phase is ServerPhase.STOPPING:
        if not server.live:
            return "Port released."
        return f"Port released. Finishing {plural(len(server.live), 'answer')}. Press s to abort."
    return printable(server.url)


def _model(context: Context) -> Fact:
    """Return the model in memory, or why there is none."""
    engine = context.chats.status
    if engine.loading is not None:
        total = engine.loading_total
        progress = f"  {format_size(engine.loading_done)} of {format_size(total)}" if total else "  loading …"
        return Fact("Model", _short(engine.loading), "$accent", progress)
    if engine.model is not None:
        model, used = engine.model, engine.memory_bytes or engine.model.memory_bytes
        details = [format_size(used)]
        if model.weights is CpuWeights.FLOAT32 and model.stored_bytes < used / 1.5:
            stored = format_size(model.stored_bytes)
            details = [
                f"{details[0]} as float32, {stored} as stored",
                f"{details[0]} float32, {stored} stored",
                f"{details[0]} float32",
            ]
        if model.unbatched_reason is not None:
            details = [f"{text} · no batching" for text in details]
        first, *shorter = (f"  {text}" for text in details)
        return Fact("Model", _short(engine.model.name), "$strong", first, shorter)
    if engine.state is EngineState.FAILED:
        return Fact("Model", "✗ engine crashed", "$bad")
    default = context.server.options.model
    if default is not None and context.server.model_problem is not None:
        return Fact("Model", _short(default), "$attention", "  can't be loaded")
    if default is not None:
        return Fact("Model", _short(default), "$muted", "  not loaded")
    return Fact("Model", "none (loads with the first request)", "$muted")


def current_problem(context: Context) -> tuple[str, str]:
    """Return the current problem with its next step, and a token; empty for none."""
    server, engine = context.server, context.chats.status
    if server.problem is not None:
        free = f" Press f to use {server.free_port}, which is free." if server.free_port is not None else ""
        return f"✗ {cause(server.problem)}{free}", "$bad"
    if server.phase is not ServerPhase.ON:
        return "", ""
    if _restarts(server):
        return "▲ The engine crashed and is restarting.", "$attention"
    if engine.loading is not None:
        return "", ""
    if engine.last_error is not None:
        return f"✗ {error_text(engine.last_error)}", "$bad"
    in_memory = engine.model is not None and engine.model.name == server.options.model
    if server.model_problem is not None and not in_memory:
        return f"▲ {_about_model(server, server.model_problem)}", "$attention"
    if slow := _slow_prompts(engine):
        return f"▲ {slow}", "$attention"
    return "", ""


def _slow_prompts(engine: EngineStatus) -> str:
    """Return why prompts are processed slowly, with the next step; empty if they are not."""
    blas = engine.blas
    return printable(blas.message) if blas is not None and blas.state is BlasState.BUILT_IN else ""


def _restarts(server: ServerControl) -> bool:
    return server.server is not None and server.server.health.value == "restarting"


def _about_model(server: ServerControl, error: OpError) -> str:
    """Return why requests that name no model fail, with the next step."""
    name, hint = printable(server.options.model or ""), "Press m to choose another"
    if error.type is ErrorType.MODEL_NOT_FOUND:
        why = "is not in the cache."
    elif error.type is ErrorType.INSUFFICIENT_MEMORY:
        needed, here = format_size(error.facts.needed_bytes), format_size(error.facts.available_bytes)
        why = f"needs about {needed} of memory, {here} available."
        hint += " or load it anyway"
    else:
        why = f"can't be loaded: {sentence(error.message)}"
    return f"The server_model {name} {why} Requests without a model fail. {hint}."


def _short(name: str) -> str:
    return printable(name.rpartition("/")[2])


def _plots(server: ServerControl) -> tuple[Plot, ...]:
    waiting = sum(entry.state in _WAITING for entry in server.live)
    rates, queue = server.measurements.rates, server.measurements.queue
    peak = max(rates, default=0.0)
    return (
        Plot(
            "Tokens/s",
            rate_text(rates[-1]) if rates else "0.0",
            f"peak {rate_text(peak)}" if peak else "last minute",
            list(rates),
        ),
        Plot(
            "Queue",
            f"{len(server.live)}",
            f"{waiting} waiting" if waiting else f"max {server.options.max_queue:,}",
            list(queue),
        ),
    )


def _problem_title(context: Context, mark: str, text: str) -> str:
    """Return the title of a problem that fills the pane."""
    if mark == "✗":
        return "Engine error"
    if _restarts(context.server):
        return "Engine restarting"
    if text == _slow_prompts(context.chats.status):
        return "The server is on, but slow"
    return "The server is on, but its model is missing"


def counts(server: ServerControl) -> str:
    """Return the numbers of requests, for the border."""
    live = len(server.live)
    known = len(server.entries)
    ended = known - live
    parts = [f"{live} open"] if live else []
    parts += [f"{ended:,} finished"] if ended else []
    parts += [f"{server.measurements.failed:,} failed"] if server.measurements.failed else []
    return " · ".join(parts)


def message(view: StateView, context: Context, *, no_mlx: bool) -> None:
    """Show the message in place of requests."""
    server = context.server
    if server.phase is ServerPhase.ON and current_problem(context)[0]:
        problem, style = current_problem(context)
        mark, _, text = problem.partition(" ")
        view.show(
            mark,
            _problem_title(context, mark, text),
            wrap(text, _LINE),
            style=style,
            keys=[("m", "load a model")],
        )
    elif server.phase is ServerPhase.ON:
        view.show(
            "▲",
            "Waiting for the first request",
            [f"Base URL: {printable(server.url)}/v1"],
            style="$accent",
            keys=[("i", "connect a program"), ("y", "copy URL")],
        )
    elif server.phase is ServerPhase.STARTING:
        view.show("·  ·  ·", "Starting the server", [])
    elif server.phase is ServerPhase.STOPPING:
        view.show("·  ·  ·", "Stopping the server", ["The port is already free."])
    elif server.problem is not None:
        _problem(view, server, server.problem)
    elif no_mlx:
        view.show(
            "▲",
            "Models can't run here",
            ["mlx-lm is not installed. It needs Apple silicon or Linux."],
            style="$attention",
            command="pip install mlx-lm",
        )
    else:
        access = "API key required" if server.options.api_keys else "no API key required"
        address = server.url if server.options.port else f"{server.options.host}, a free port"
        view.show(
            "▲",
            "The server is off",
            [
                "Lets editors, agents and scripts use your models",
                "over an OpenAI- or Anthropic-compatible API.",
                "",
                f"Address: {printable(address)} ({access})",
            ],
            keys=[("s", "turn on"), ("e", "settings"), ("n", "new key")],
        )


def cause(error: OpError) -> str:
    """Return the error, without a remedy for which the pane shows a key."""
    return sentence(error.message) if error.remedy is Remedy.CHOOSE_ANOTHER_PORT else error_text(error)


def _problem(view: StateView, server: ServerControl, error: OpError) -> None:
    title = "Port already in use" if error.type is ErrorType.PORT_IN_USE else "Can't start the server"
    keys = [("s", "retry"), ("e", "settings")]
    sentences = wrap(cause(error), _LINE)
    if error.remedy is Remedy.CHOOSE_ANOTHER_PORT:
        sentences.append(WORDS[error.remedy])
        if server.free_port is not None:
            keys.insert(0, ("f", f"use {server.free_port} (free)"))
    elif error.remedy is Remedy.SET_API_KEY:
        keys.insert(0, ("n", "new key"))
    view.show("✗", title, sentences, style="$bad", keys=keys)
