"""The `server` command: listens, prints one envelope, and serves until a signal stops it."""

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
from mlxk_tui_headless.background_output import write_in_background
from mlxk_tui_headless.cancellation import wake_on_signals
from mlxk_tui_headless.error_text import error_text

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession

_log = logging.getLogger("mlxk_tui.server")


@dataclass(frozen=True)
class ServeOptions:
    """The options of the command line; None means the value of the settings."""

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


def serve(session: CommandSession, options: ServeOptions) -> None:
    """Serve until a signal stops the server; the envelope is printed as soon as it listens.

    Raises:
        OpError: `port_in_use`, `validation_error`, `permission_denied`, and those of `find_runnable`.
    """
    gc.enable()  # off at the start, because most commands end at once
    command = _ServeCommand(session, options)
    try:
        with (
            write_in_background("stdout", note=None),
            write_in_background(),
            _log_to_stderr(options.log_level),
            session.interrupts.handled_by(command.on_signal),
        ):
            asyncio.run(command.run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _ServeCommand:
    def __init__(self, session: CommandSession, options: ServeOptions) -> None:
        self._session = session
        self._options = options
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._had_terminal = _has_terminal()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped_early = False
        self._reload: Callable[[], None] = _do_nothing

    def on_signal(self, number: int) -> None:
        """Stop, or reload on SIGHUP; runs in the main thread, between two bytecodes."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
                self._loop.call_soon_threadsafe(self._on_hangup if number == signal.SIGHUP else self._end)
        elif number != signal.SIGHUP:
            self._stopped_early = True

    async def run(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._stopped_early:
            raise asyncio.CancelledError
        with wake_on_signals(self._loop):
            await self._run()

    async def _run(self) -> None:
        server_options, idle_unload_s = load_options(self._options)
        loaded = settings.load({"cpu_weights": self._options.cpu_weights})
        engine = Engine(idle_unload_s=idle_unload_s, weights=settings.weights_choice(loaded))
        engine.subscribe(_EngineLog().on_status)
        server = Server(engine, self._session.cache, server_options)
        self._reload = partial(self._reload_settings, engine, server)
        loading: asyncio.Task[None] | None = None
        try:
            model = await self._find_model(server_options)
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

    async def _find_model(self, server_options: ServerOptions) -> Runnable | None:
        """Find the model to load at the start; if only the settings name it, an error is just a warning."""
        if server_options.model is None:
            return None
        spec = server_options.aliases.get(server_options.model, server_options.model)
        try:
            return await find_runnable(self._session.cache, spec, force=server_options.force)
        except OpError as error:
            if self._options.model is not None:
                raise
            output.warn(
                f"Warning: {printable(spec)}, the model of the setting server_model, was not loaded: "
                f"{error_text(error)}"
            )
            return None

    async def _finish(self, server: Server) -> None:
        """Wait for running answers to finish; a second signal ends the wait."""
        if server.generations:
            _log.info(
                "Stopping: waiting %g s for %d running answers.", self._options.grace_s, server.generations
            )
        stopping = asyncio.create_task(server.stop(self._options.grace_s))
        second_signal = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait({stopping, second_signal}, return_when=asyncio.FIRST_COMPLETED)
        second_signal.cancel()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping

    def _end(self) -> None:
        (self._stop_now if self._stop.is_set() else self._stop).set()

    def _on_hangup(self) -> None:
        """Reload the settings; if the terminal was closed, stop instead."""
        if self._had_terminal and not _has_terminal():
            self._end()
        else:
            self._reload()

    def _reload_settings(self, engine: Engine, server: Server) -> None:
        try:
            server_options, idle_unload_s = load_options(self._options)
            server.reload(server_options)
        except OpError as error:
            _log.error("The settings were not reloaded: %s", error_text(error))
            return
        engine.idle_unload_s = idle_unload_s
        _log.info("Settings reloaded.")

    def _report(self, data: ServerData) -> None:
        envelope = Envelope(status="success", command=Command.SERVER, data=data, error=None)
        if self._session.options.json:
            output.write(output.envelope_json(envelope) + "\n")
            # The one object is on stdout; everything after it is text on stderr.
            self._session.options.json = False
        else:
            from mlxk_tui_headless.render import human

            human.show(envelope)


def _do_nothing() -> None:
    """Ignore a reload before the server has started."""


class _EngineLog:
    """Logs the BLAS library and the format of the weights on a machine without a GPU."""

    def __init__(self) -> None:
        self._blas_message = ""
        self._model: ModelStatus | None = None

    def on_status(self, status: EngineStatus) -> None:
        """Log what changed in the engine's status."""
        blas, model = status.blas, status.model
        if blas is not None and blas.message != self._blas_message:
            self._blas_message = blas.message
            _log.log(logging.INFO if blas.state is BlasState.FAST else logging.WARNING, "%s", blas.message)
        if model is not None and model != self._model and model.weights is not None:
            _log_weights(model)
        self._model = model


def _log_weights(model: ModelStatus) -> None:
    held, stored = size(model.memory_bytes), size(model.stored_bytes)
    if model.weights_fault:
        _log.warning(
            "%s cannot use the cpu_weights setting (%s): its weights are held as stored, %s.",
            *(model.name, model.weights_fault, stored),
        )
    elif model.weights is CpuWeights.FLOAT32:
        _log.info("Weights of %s: float32, %s (stored: %s).", model.name, held, stored)
    else:
        _log.info("Weights of %s: as stored, %s.", model.name, held)


async def _load(engine: Engine, model: Runnable) -> None:
    _log.info("Loading %s.", model.name)
    try:
        loaded = await engine.load(model)
    except OpError as error:
        _log.error("%s", error_text(error))
    else:
        _log.info("Loaded %s in %.1f s.", model.name, loaded.load_s)


def load_options(given: ServeOptions) -> tuple[ServerOptions, float]:
    """Return the server's options and the idle time in seconds, from command line, settings and key file.

    Raises:
        OpError: `validation_error`, `permission_denied`.
    """
    loaded = settings.load()
    for problem in loaded.problems:
        output.warn(f"Warning: {problem}")
    stored = loaded.settings
    idle_minutes = (
        stored.idle_unload_minutes if given.idle_unload_minutes is None else given.idle_unload_minutes
    )
    _check(given, idle_minutes)
    defaults = ServerOptions()
    options = ServerOptions(
        host=given.host if given.host is not None else stored.server_host,
        port=given.port if given.port is not None else stored.server_port,
        api_keys=_keys(given.api_keys, loaded.key_file),
        origins=(*listed(stored.server_origins), *_origins(given.origins)),
        hosts=(*listed(stored.server_hosts), *(host for text in given.hosts for host in listed(text))),
        model=given.model if given.model is not None else stored.server_model or None,
        aliases=_aliases(given.aliases),
        force=given.force,
        max_tokens=given.max_tokens or stored.server_max_tokens or None,
        max_queue=given.max_queue or defaults.max_queue,
        log_prompts=given.log_prompts,
    )
    return options, idle_minutes * 60


def _check(given: ServeOptions, idle_minutes: float) -> None:
    for name, value in (("--max-tokens", given.max_tokens), ("--max-queue", given.max_queue)):
        if value is not None and value < 1:
            raise _invalid(f"{name} must be 1 or more.")
    for name, number in (("--idle-unload", idle_minutes), ("--grace", given.grace_s)):
        if not 0 <= number <= 1e6:
            raise _invalid(f"{name} must be 0 or more.")


def _keys(given: tuple[str, ...], key_file: Path) -> dict[str, str]:
    """Return the keys of the command line, or else of the environment, or else of the key file."""
    if given:
        return keys.parse_keys(given, "--api-key")
    return keys.from_environment(os.environ) or keys.read_keys(key_file)


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    origins = tuple(origin for text in given for origin in listed(text))
    for origin in origins:
        if origin != "*" and "://" not in origin:
            raise _invalid(
                f"--allow-origin {origin} is not a valid origin. Use the form https://chat.example.org."
            )
    return origins


def _aliases(given: tuple[str, ...]) -> dict[str, str]:
    aliases = {}
    for text in given:
        name, equals, model = text.partition("=")
        if not (equals and name.strip() and model.strip()):
            raise _invalid(f"--alias {text} is not valid. Use the form NAME=MODEL.")
        aliases[name.strip()] = model.strip()
    return aliases


def _invalid(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)


def _has_terminal() -> bool:
    """Return whether stdin is a terminal that has not been closed."""
    if not output.is_terminal(sys.stdin):
        return False
    try:
        os.tcgetpgrp(sys.stdin.fileno())
    except (OSError, ValueError):
        return False
    return True


class _StderrHandler(logging.Handler):
    """Writes each record to stderr as a line, with control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        time = datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="seconds")
        text = f"{time} {record.levelname.lower()} {record.getMessage()}"
        if record.exc_info:
            text += f"\n{logging.Formatter().formatException(record.exc_info)}"
        output.warn(text)


@contextlib.contextmanager
def _log_to_stderr(level: str) -> Iterator[None]:
    handler = _StderrHandler()
    before = _log.level, _log.propagate
    _log.addHandler(handler)
    _log.setLevel(level.upper())
    _log.propagate = False
    try:
        yield
    finally:
        _log.level, _log.propagate = before
        _log.removeHandler(handler)
