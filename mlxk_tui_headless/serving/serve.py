"""The `server` command: listens, prints one envelope, and serves until a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mlxk_tui import settings
from mlxk_tui.engine.client import Engine
from mlxk_tui.engine.models import RunnableModel
from mlxk_tui.engine.status import EngineStatus, ModelStatus
from mlxk_tui.ops.contract.inference import ServerData
from mlxk_tui.ops.contract.matrices import BlasState
from mlxk_tui.ops.contract.results import Command
from mlxk_tui.ops.contract.terms import CpuWeights
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import format_size, printable
from mlxk_tui.server.options import Address
from mlxk_tui.services.server.control import ServerControl
from mlxk_tui.settings import LoadedSettings
from mlxk_tui_headless import output
from mlxk_tui_headless.error_text import error_text
from mlxk_tui_headless.serving.listener import ListeningCommand

if TYPE_CHECKING:
    from mlxk_tui_headless.session import CommandSession

_log = logging.getLogger("mlxk_tui.server")


def serve(
    session: CommandSession,
    given: Mapping[str, Any],
    *,
    cpu_weights: CpuWeights | None,
    idle_unload_minutes: float | None,
    grace_s: float,
    log_level: str,
) -> None:
    """Serve until a signal stops the server; the envelope is printed as soon as it listens.

    Args:
        session: what the command works with.
        given: options of the command line by their names in `ServerOptions`; None means that of the settings.
        cpu_weights: the format of weights without a GPU; None means that of the settings.
        idle_unload_minutes: idle time after which a model is unloaded; None means that of the settings.
        grace_s: how long running answers may continue after the first signal.
        log_level: log level on stderr.

    Raises:
        OpError: `port_in_use`, `validation_error`, `permission_denied`, and those of `find_runnable`.
    """
    _ServeCommand(session, given, cpu_weights, idle_unload_minutes, grace_s).run(log_level)


class _ServeCommand(ListeningCommand):
    def __init__(
        self,
        session: CommandSession,
        given: Mapping[str, Any],
        cpu_weights: CpuWeights | None,
        idle_unload_minutes: float | None,
        grace_s: float,
    ) -> None:
        super().__init__(session)
        self._given = given
        self._cpu_weights = cpu_weights
        self._idle_unload_minutes = idle_unload_minutes
        self._grace_s = grace_s
        self._stop_now = asyncio.Event()
        self._had_terminal = _has_terminal()
        self._reload: Callable[[], None] = _do_nothing

    @property
    def hangup_stops(self) -> bool:
        return False  # the settings have not been read yet

    async def listen(self) -> None:
        loaded = self._load_settings()
        engine = Engine(idle_unload_s=self._idle_unload_s(loaded), weights=settings.weights_policy(loaded))
        engine.subscribe(_EngineLog().on_status)
        control = ServerControl(
            loaded, self.session.cache, lambda: engine, given=self._given, remember=False, sample_seconds=0
        )
        self._reload = partial(self._reload_settings, engine, control)
        loading: asyncio.Task[None] | None = None
        try:
            address = await control.start()
            gc.enable()  # off at the start, because most commands end at once
            if (problem := control.model_problem) is not None:
                name = printable(control.options.model or "")
                why = error_text(problem)
                output.warn(f"Warning: {name}, the model of the setting server_model, was not loaded: {why}")
            self._report(address, control.model)
            if control.model is not None:
                loading = asyncio.create_task(_load(engine, control.model))
            await self.stop.wait()
            await self._finish(control)
        finally:
            if loading is not None:
                loading.cancel()
            await control.stop()
            await engine.stop()

    def _load_settings(self) -> LoadedSettings:
        loaded = settings.load({"cpu_weights": self._cpu_weights})
        for problem in loaded.problems:
            output.warn(f"Warning: {problem}")
        return loaded

    def _idle_unload_s(self, loaded: LoadedSettings) -> float:
        minutes = self._idle_unload_minutes
        return 60 * (loaded.settings.idle_unload_minutes if minutes is None else minutes)

    async def _finish(self, control: ServerControl) -> None:
        """Wait for running answers to finish; a second signal ends the wait."""
        if control.server is not None and (answers := control.server.generations):
            _log.info("Stopping: waiting %g s for %d running answers.", self._grace_s, answers)
        stopping = asyncio.create_task(control.stop(self._grace_s))
        second_signal = asyncio.create_task(self._stop_now.wait())
        await asyncio.wait({stopping, second_signal}, return_when=asyncio.FIRST_COMPLETED)
        second_signal.cancel()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping

    def on_stop(self) -> None:
        """Stop; the second signal does not wait for running answers."""
        (self._stop_now if self.stop.is_set() else self.stop).set()

    def on_hangup(self) -> None:
        """Reload the settings; if the terminal was closed, stop instead."""
        if self._had_terminal and not _has_terminal():
            self.on_stop()
        else:
            self._reload()

    def _reload_settings(self, engine: Engine, control: ServerControl) -> None:
        try:
            loaded = self._load_settings()
            control.reload(loaded)
        except OpError as error:
            _log.error("The settings were not reloaded: %s", error_text(error))
            return
        engine.idle_unload_s = self._idle_unload_s(loaded)
        _log.info("Settings reloaded.")

    def _report(self, address: Address, model: RunnableModel | None) -> None:
        data = ServerData(
            url=address.url,
            host=address.host,
            port=address.port,
            model=model.name if model is not None else None,
            pid=os.getpid(),
        )
        self.report(Command.SERVER, data)


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
    held, stored = format_size(model.memory_bytes), format_size(model.stored_bytes)
    if model.weights_error:
        _log.warning(
            "%s cannot use the cpu_weights setting (%s): its weights are held as stored, %s.",
            *(model.name, model.weights_error, stored),
        )
    elif model.weights is CpuWeights.FLOAT32:
        _log.info("Weights of %s: float32, %s (stored: %s).", model.name, held, stored)
    else:
        _log.info("Weights of %s: as stored, %s.", model.name, held)


async def _load(engine: Engine, model: RunnableModel) -> None:
    _log.info("Loading %s.", model.name)
    try:
        loaded = await engine.load(model)
    except OpError as error:
        _log.error("%s", error_text(error))
    else:
        _log.info("Loaded %s in %.1f s.", model.name, loaded.load_s)


def check_numbers(options: Mapping[str, float | None], least: int, most: float) -> None:
    """Refuse options that are out of range; None means not given.

    Raises:
        OpError: `validation_error`.
    """
    for name, value in options.items():
        if value is not None and not least <= value <= most:
            limits = f"{least} or more" if most == math.inf else f"from {least} to {most:,.0f}"
            raise _invalid(f"{name} must be {limits}.")


def parse_aliases(texts: Iterable[str]) -> dict[str, str]:
    """Return the models of `NAME=MODEL`, by name.

    Raises:
        OpError: `validation_error`.
    """
    aliases = {}
    for text in texts:
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
