"""The `server` command: listens, says so in one envelope, and works until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlxk_tui import settings
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import Runnable, find_runnable
from mlxk_tui.engine.status import EngineStatus, ModelStatus
from mlxk_tui.ops.contract.inference import ServerData
from mlxk_tui.ops.contract.matrices import BlasState
from mlxk_tui.ops.contract.results import Command, Envelope
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable, size
from mlxk_tui.server.http import keys
from mlxk_tui.server.options import ServerOptions, listed
from mlxk_tui.server.server import Server
from mlxk_tui_headless import output
from mlxk_tui_headless.error_text import error_text
from mlxk_tui_headless.patient_streams import never_blocking
from mlxk_tui_headless.stopping import woken_by_signals

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession

_log = logging.getLogger("mlxk_tui.server")


@dataclass(frozen=True)
class ServeOptions:
    """What the command line asks for; None leaves it to the settings."""

    model: str | None
    host: str | None
    port: int | None
    max_tokens: int | None
    api_keys: tuple[str, ...]
    origins: tuple[str, ...]
    hosts: tuple[str, ...]
    aliases: tuple[str, ...]
    cpu_weights: CpuWeights | None
    force: bool
    max_queue: int | None
    idle_unload_minutes: float | None
    grace_s: float
    log_level: str
    log_prompts: bool


def serve(session: CommandSession, wanted: ServeOptions) -> None:
    """Serve until a signal ends it; the envelope is printed as soon as it listens.

    Raises:
        OpError: `port_in_use`, `validation_error`, `permission_denied`, and those of `find_runnable`.
    """
    gc.enable()  # the command starts without a collection, because most end at once
    serving = _Serving(session, wanted)
    try:
        with (
            never_blocking("stdout", note=None),
            never_blocking(),
            _lines_on_stderr(wanted.log_level),
            session.interrupts.taken_by(serving.take),
        ):
            asyncio.run(serving.run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Serving:
    def __init__(self, session: CommandSession, wanted: ServeOptions) -> None:
        self._session = session
        self._wanted = wanted
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._was_at_terminal = _terminal_is_there()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended_early = False
        self._reload: Callable[[], None] = _nothing

    def take(self, number: int) -> None:
        """Answer a signal; called in the main thread, wherever that is."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: it is over
                self._loop.call_soon_threadsafe(self._hang_up if number == signal.SIGHUP else self._end)
        elif number != signal.SIGHUP:
            self._ended_early = True

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._ended_early:
            raise asyncio.CancelledError
        with woken_by_signals(self._loop):
            await self._run()

    async def _run(self) -> None:
        options, idle_unload_s = load_options(self._wanted)
        loaded = settings.load({"cpu_weights": self._wanted.cpu_weights})
        engine = Engine(idle_unload_s=idle_unload_s, weights=settings.weights_choice(loaded))
        engine.subscribe(_EngineLog().note)
        server = Server(engine, self._session.cache, options)
        self._reload = partial(self._read_settings, engine, server)
        loading: asyncio.Task[None] | None = None
        try:
            model = await self._model(options)
            address = await server.start()
            self._report(
                ServerData(
                    url=address.url,
                    host=address.host,
                    port=address.port,
                    model=model.name if model is not None else None,
                    pid=os.getpid(),
                )
            )
            if model is not None:
                loading = asyncio.create_task(_load(engine, model))
            await self._stop.wait()
            await self._finish(server)
        finally:
            if loading is not None:
                loading.cancel()
            await server.stop()
            await engine.stop()

    async def _model(self, options: ServerOptions) -> Runnable | None:
        """Find the model to begin with; one that only the settings name does not keep the server from it."""
        if options.model is None:
            return None
        spec = options.aliases.get(options.model, options.model)
        try:
            return await find_runnable(self._session.cache, spec, force=options.force)
        except OpError as error:
            if self._wanted.model is not None:
                raise
            output.warn(
                f"Warning: the setting server_model names {printable(spec)}, which is not loaded: "
                f"{error_text(error)}"
            )
            return None

    async def _finish(self, server: Server) -> None:
        """Let answers end, for a while; a second signal ends the patience."""
        if server.generations:
            _log.info("Stopping; %d answers may end within %g s.", server.generations, self._wanted.grace_s)
        ending = asyncio.create_task(server.stop(self._wanted.grace_s))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        ending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ending

    def _end(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _hang_up(self) -> None:
        """Read the settings again; a terminal that was closed means the end instead."""
        if self._was_at_terminal and not _terminal_is_there():
            self._end()
        else:
            self._reload()

    def _read_settings(self, engine: Engine, server: Server) -> None:
        try:
            options, idle_unload_s = load_options(self._wanted)
            server.reload(options)
        except OpError as error:
            _log.error("The settings stay as they were: %s", error_text(error))
            return
        engine.idle_unload_s = idle_unload_s
        _log.info("The settings were read again.")

    def _report(self, data: ServerData) -> None:
        envelope = Envelope(status="success", command=Command.SERVER, data=data, error=None)
        if self._session.options.json:
            output.write(output.envelope_json(envelope) + "\n")
            # stdout has its one object; whatever is still to be said is text on stderr.
            self._session.options.json = False
        else:
            from mlxk_tui_headless.render import human

            human.show(envelope)


def _nothing() -> None:
    """Do nothing: the settings have not been read yet."""


class _EngineLog:
    """Logs how matrices are multiplied and weights are held without a GPU, once it is known."""

    def __init__(self) -> None:
        self._logged = ""
        self._model: ModelStatus | None = None

    def note(self, status: EngineStatus) -> None:
        """Look at a status of the engine."""
        blas, model = status.blas, status.model
        if blas is not None and blas.message != self._logged:
            self._logged = blas.message
            _log.log(logging.INFO if blas.state is BlasState.FAST else logging.WARNING, "%s", blas.message)
        if model is not None and model != self._model and model.weights is not None:
            _log_weights(model)
        self._model = model


def _log_weights(model: ModelStatus) -> None:
    held, stored = size(model.memory_bytes), size(model.stored_bytes)
    if model.weights_fault:
        _log.warning(
            "%s does not run with its weights held as cpu_weights says (%s): they are as stored, %s.",
            *(model.name, model.weights_fault, stored),
        )
    elif model.weights is CpuWeights.FLOAT32:
        _log.info("The weights of %s are held as float32: %s, %s as stored.", model.name, held, stored)
    else:
        _log.info("The weights of %s are held as stored: %s.", model.name, held)


async def _load(engine: Engine, model: Runnable) -> None:
    _log.info("Loading %s.", model.name)
    try:
        loaded = await engine.load(model)
    except OpError as error:
        _log.error("%s", error_text(error))
    else:
        _log.info("%s is loaded (%.1f s).", model.name, loaded.load_s)


def load_options(wanted: ServeOptions) -> tuple[ServerOptions, float]:
    """Return the options of command line, environment, settings and key file, and the idle time in seconds.

    Raises:
        OpError: `validation_error`, `permission_denied`.
    """
    loaded = settings.load()
    for problem in loaded.problems:
        output.warn(f"Warning: {problem}")
    given = loaded.settings
    idle_minutes = (
        given.idle_unload_minutes if wanted.idle_unload_minutes is None else wanted.idle_unload_minutes
    )
    _check(wanted, idle_minutes)
    defaults = ServerOptions()
    options = ServerOptions(
        host=wanted.host if wanted.host is not None else given.server_host,
        port=wanted.port if wanted.port is not None else given.server_port,
        api_keys=_keys(wanted.api_keys, loaded.key_file),
        origins=(*listed(given.server_origins), *_origins(wanted.origins)),
        hosts=(*listed(given.server_hosts), *(host for text in wanted.hosts for host in listed(text))),
        model=wanted.model if wanted.model is not None else given.server_model or None,
        aliases=_aliases(wanted.aliases),
        force=wanted.force,
        max_tokens=wanted.max_tokens or given.server_max_tokens or None,
        max_queue=wanted.max_queue or defaults.max_queue,
        log_prompts=wanted.log_prompts,
    )
    return options, idle_minutes * 60


def _check(wanted: ServeOptions, idle_minutes: float) -> None:
    for name, value in (("--max-tokens", wanted.max_tokens), ("--max-queue", wanted.max_queue)):
        if value is not None and value < 1:
            raise _invalid(f"{name} takes 1 or more.")
    for name, number in (("--idle-unload", idle_minutes), ("--grace", wanted.grace_s)):
        if not 0 <= number <= 1e6:
            raise _invalid(f"{name} takes 0 or more.")


def _keys(given: tuple[str, ...], key_file: Path) -> dict[str, str]:
    """Return the keys of the command line, else of the environment, else of the key file."""
    if given:
        return keys.parse_keys(given, "--api-key")
    return keys.from_environment(os.environ) or keys.read_keys(key_file)


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(origin for text in given for origin in listed(text))
    for origin in origins:
        if origin != "*" and "://" not in origin:
            raise _invalid(f"--allow-origin {origin}: an origin looks like https://chat.example.org.")
    return origins


def _aliases(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, model = text.partition("=")
        if not (equals and name.strip() and model.strip()):
            raise _invalid(f"--alias {text}: write NAME=MODEL.")
        found[name.strip()] = model.strip()
    return found


def _invalid(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)


def _terminal_is_there() -> bool:
    """Tell whether stdin is a terminal that still has somebody at it."""
    if not output.is_terminal(sys.stdin):
        return False
    try:
        os.tcgetpgrp(sys.stdin.fileno())
    except (OSError, ValueError):
        return False
    return True


class _Lines(logging.Handler):
    """Writes a line about each record to stderr, made safe to show."""

    def emit(self, record: logging.LogRecord) -> None:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        text = f"{time} {record.levelname.lower()} {record.getMessage()}"
        if record.exc_info:
            text += f"\n{logging.Formatter().formatException(record.exc_info)}"
        output.warn(text)


@contextlib.contextmanager
def _lines_on_stderr(level: str) -> Iterator[None]:
    handler = _Lines()
    before = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(level.upper())
    _log.propagate = False
    try:
        yield
    finally:
        _log.level, _log.propagate = before
        _log.removeHandler(handler)
