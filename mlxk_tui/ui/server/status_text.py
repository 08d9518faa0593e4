"""What the Server pane says above the requests, and in their place: off, starting, a problem, none."""

from __future__ import annotations

from mlxk_tui.engine.status import EngineState, EngineStatus
from mlxk_tui.ops.contract.matrices import BlasState
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy
from mlxk_tui.ops.core.text import plural, printable, size, spaced_size
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
    """Return the upper panel."""
    server = context.server
    keys = server.options.api_keys
    if keys:
        who = f"{plural(len(keys), 'key')}: {', '.join(printable(name) for name in keys)}"
    else:
        who = "none: every program here may call"
    origins = server.options.origins
    pages = ", ".join(printable(origin) for origin in origins) if origins else "none: no web page may call"
    return ServerStatus(
        SWITCH[server.phase],
        _address(server),
        (
            _model(context),
            Fact("Keys", who, "" if keys else "$muted"),
            Fact("Origins", pages, "" if origins else "$muted"),
        ),
        _plots(server) if server.phase is ServerPhase.ON else (),
    )


def _address(server: ServerControl) -> str:
    if server.phase is ServerPhase.STOPPING:
        open_ = plural(len(server.live), "answer")
        return f"The port is free; {open_} may end. s ends them now." if server.live else "The port is free."
    return printable(server.url)


def _model(context: Context) -> Fact:
    """Return what the engine has in memory."""
    engine = context.chats.status
    if engine.loading is not None:
        total = engine.loading_total
        read = f"  {spaced_size(engine.loading_done)} of {spaced_size(total)}" if total else "  loading …"
        return Fact("Model", _short(engine.loading), "$accent", read)
    if engine.model is not None:
        model, used = engine.model, engine.memory_bytes or engine.model.memory_bytes
        held = [spaced_size(used)]
        if model.weights is CpuWeights.FLOAT32 and model.stored_bytes < used / 1.5:
            stored = spaced_size(model.stored_bytes)
            held = [
                f"{held[0]} as float32, {stored} as stored",
                f"{held[0]} float32, {stored} stored",
                f"{held[0]} float32",
            ]
        if model.in_turn is not None:
            held = [*(f"{text} · requests take turns" for text in held), f"{held[-1]} · in turn"]
        first, *shorter = (f"  {text}" for text in held)
        return Fact("Model", _short(engine.model.name), "$strong", first, shorter)
    if engine.state is EngineState.FAILED:
        return Fact("Model", "✗ the engine ended", "$bad")
    default = context.server.options.model
    if default is not None and context.server.model_problem is not None:
        return Fact("Model", _short(default), "$attention", "  cannot be loaded")
    if default is not None:
        return Fact("Model", _short(default), "$muted", "  not loaded")
    return Fact("Model", "none loaded: a request loads its own", "$muted")


def trouble(context: Context) -> tuple[str, str]:
    """Return what hinders the service now, with what to do, and a token; empty for nothing."""
    server, engine = context.server, context.chats.status
    if server.problem is not None:
        free = f" f takes {server.free_port}, which is free." if server.free_port is not None else ""
        return f"✗ {cause(server.problem)}{free}", "$bad"
    if server.phase is not ServerPhase.ON:
        return "", ""
    if _restarts(server):
        return "▲ The inference process ended and is being started again.", "$attention"
    if engine.loading is not None:
        return "", ""
    if engine.last_error is not None:
        return f"✗ {error_text(engine.last_error)}", "$bad"
    in_memory = engine.model is not None and engine.model.name == server.options.model
    if server.model_problem is not None and not in_memory:
        return f"▲ {_about_model(server, server.model_problem)}", "$attention"
    if slow := _slow(engine):
        return f"▲ {slow}", "$attention"
    return "", ""


def _slow(engine: EngineStatus) -> str:
    """Return why prompts are read slowly, with what helps; empty where they are not."""
    blas = engine.blas
    return printable(blas.message) if blas is not None and blas.state is BlasState.BUILT_IN else ""


def _restarts(server: ServerControl) -> bool:
    return server.server is not None and server.server.health.value == "restarting"


def _about_model(server: ServerControl, error: OpError) -> str:
    """Return why requests that name no model fail."""
    named, said = f"The setting server_model names {printable(server.options.model or '')}", "m takes another"
    if error.type is ErrorType.MODEL_NOT_FOUND:
        why = "which is not in the cache."
    elif error.type is ErrorType.INSUFFICIENT_MEMORY:
        needed, here = size(error.facts.needed_bytes), size(error.facts.available_bytes)
        why = f"which needs about {needed} of memory; models can use {here} here."
        said += ", or loads it all the same"
    else:
        why = f"which cannot be loaded: {sentence(error.message)}"
    return f"{named}, {why} Requests that name no model fail; {said}."


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
            f"at most {rate_text(peak)}" if peak else "last minute",
            list(rates),
        ),
        Plot(
            "Queue",
            f"{len(server.live)}",
            f"{waiting} waiting" if waiting else f"of {server.options.max_queue:,}",
            list(queue),
        ),
    )


def _title(context: Context, mark: str, said: str) -> str:
    """Return what stands above a trouble that fills the pane."""
    if mark == "✗":
        return "The engine has a problem"
    if _restarts(context.server):
        return "The engine is being started again"
    if said == _slow(context.chats.status):
        return "The server is on, but slow"
    return "The server is on, without its model"


def counts(server: ServerControl) -> str:
    """Return how many requests there are, for the frame."""
    live = len(server.live)
    known = len(server.entries)
    ended = known - live
    parts = [f"{live} open"] if live else []
    parts += [f"{ended:,} ended"] if ended else []
    parts += [f"{server.measurements.failed:,} failed"] if server.measurements.failed else []
    return " · ".join(parts)


def message(view: StateView, context: Context, *, no_mlx: bool) -> None:
    """Show what stands where no request does."""
    server = context.server
    if server.phase is ServerPhase.ON and trouble(context)[0]:
        said, style = trouble(context)
        mark, _, said = said.partition(" ")
        view.show(
            mark, _title(context, mark, said), wrap(said, _LINE), style=style, keys=[("m", "load a model")]
        )
    elif server.phase is ServerPhase.ON:
        view.show(
            "▲",
            "Waiting for the first request",
            [f"Point a program at {printable(server.url)}/v1."],
            style="$accent",
            keys=[("i", "how"), ("y", "copy the address")],
        )
    elif server.phase is ServerPhase.STARTING:
        view.show("·  ·  ·", "Starting the server", [])
    elif server.phase is ServerPhase.STOPPING:
        view.show("·  ·  ·", "Stopping the server", ["The port is free already."])
    elif server.problem is not None:
        _problem(view, server, server.problem)
    elif no_mlx:
        view.show(
            "▲",
            "Models cannot run here",
            ["mlx-lm is not installed. It needs Apple silicon or Linux."],
            style="$attention",
            command="pip install mlx-lm",
        )
    else:
        keys = server.options.api_keys
        if keys:
            who = f"whoever has {'the key' if len(keys) == 1 else 'one of the keys'} may call"
        else:
            who = "every program on this machine may call"
        view.show(
            "▲",
            "The server is off",
            [
                "Editors, agents and scripts talk to your models through it,",
                "over the API of OpenAI, or of Anthropic.",
                "",
                f"It listens on {printable(server.url)}; {who}.",
            ],
            keys=[("s", "switch on"), ("e", "set up"), ("n", "new key")],
        )


def cause(error: OpError) -> str:
    """Return what went wrong, and what to do where no key of this pane stands below it."""
    return sentence(error.message) if error.remedy is Remedy.CHOOSE_ANOTHER_PORT else error_text(error)


def _problem(view: StateView, server: ServerControl, error: OpError) -> None:
    title = "The port is taken" if error.type is ErrorType.PORT_IN_USE else "The server cannot be switched on"
    keys = [("s", "try again"), ("e", "set up")]
    sentences = wrap(cause(error), _LINE)
    if error.remedy is Remedy.CHOOSE_ANOTHER_PORT:
        sentences.append(WORDS[error.remedy])
        if server.free_port is not None:
            keys.insert(0, ("f", f"take {server.free_port}, which is free"))
    elif error.remedy is Remedy.SET_API_KEY:
        keys.insert(0, ("n", "new key"))
    view.show("✗", title, sentences, style="$bad", keys=keys)
