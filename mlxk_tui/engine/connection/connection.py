"""The connection to the worker process: pending requests, running streams, and liveness checks."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlxk_tui.engine.connection.liveness import LivenessLimits, LivenessMonitor
from mlxk_tui.engine.connection.process import WorkerProcess
from mlxk_tui.engine.generation import Event, Finished, GenerationRequest, LoadProgress
from mlxk_tui.engine.protocol import (
    Cancel,
    Command,
    Counted,
    Detokenized,
    Done,
    Embedded,
    Generate,
    Heartbeat,
    Loaded,
    Message,
    Ping,
    Ready,
    RequestFailed,
    Streamed,
    Tokenized,
)
from mlxk_tui.ops.contract.matrices import Blas
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

_TICK_S = 0.25
_PING_S = 2.0
"""Seconds without a message after which a worker with pending work is sent a `Ping`."""

Reply = Loaded | Done | Counted | Tokenized | Detokenized | Embedded


@dataclass(eq=False)
class _PendingRequest:
    reply: asyncio.Future[Reply]
    on_loading: Callable[[LoadProgress], None] | None


@dataclass(eq=False)
class _Stream:
    on_event: Callable[[Event], None]
    on_end: Callable[[OpError | None], None]


class WorkerConnection:
    """The connection to at most one worker at a time; `start` starts a new one after the last has ended.

    Args:
        on_change: called after the properties below have changed.
        on_exit: called with the reason when the worker has ended, after all requests and streams have failed.
        liveness_limits: limits after which a worker with pending work is considered stuck and is killed.
        environ: environment of the worker; defaults to that of this process.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        on_exit: Callable[[OpError], None],
        *,
        liveness_limits: LivenessLimits,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.heartbeat: Heartbeat | None = None
        """The worker's last heartbeat."""
        self.ready = False
        """Whether the worker has started up."""
        self.blas: Blas | None = None
        """The worker's BLAS library, on Linux without a GPU."""
        self.failed = False
        """Whether a worker has ended."""
        self._on_change = on_change
        self._on_exit = on_exit
        self._monitor = LivenessMonitor(liveness_limits)
        self._environ = environ
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Future[None] | None = None
        self._launching: asyncio.Task[None] | None = None
        self._requests: dict[int, _PendingRequest] = {}
        self._streams: dict[int, _Stream] = {}
        self._next_id = 0
        self._exit_error: OpError | None = None
        """The error that the end of the worker is to be reported with, if it is known before."""
        self._checked_at = self._pinged_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker, while it runs."""
        return self._worker.pid if self._worker is not None else None

    @property
    def streams(self) -> int:
        """Number of running generations."""
        return len(self._streams)

    @property
    def liveness_limits(self) -> LivenessLimits:
        """Limits after which a worker is considered stuck; may be changed at any time."""
        return self._monitor.limits

    @liveness_limits.setter
    def liveness_limits(self, liveness_limits: LivenessLimits) -> None:
        self._monitor.limits = liveness_limits

    @property
    def unresponsive(self) -> bool:
        """Whether the worker has pending work and has made no progress for seconds."""
        return self._timer is not None and self._monitor.unresponsive

    async def start(self) -> None:
        """Start a worker if none runs, and wait until it is ready.

        Raises:
            OpError: `dependency_missing`, `engine_crashed`.
        """
        if self._worker is None:
            self._exit_error = None
            self._worker = WorkerProcess(self._on_message, self._on_process_exit)
            self._monitor = LivenessMonitor(self._monitor.limits)
            self._starting = asyncio.get_running_loop().create_future()
            self._launching = asyncio.create_task(self._launch(self._worker))
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def _launch(self, worker: WorkerProcess) -> None:
        """Start the process, in a separate task: the caller of `start` may be cancelled meanwhile."""
        try:
            await worker.start(self._environ)
        except OSError as error:
            self._worker = None
            self._fail_all(_crash_error(f"The inference process did not start: {error.strerror or error}."))
        else:
            self._start_timer()
        self._on_change()

    async def request(
        self, command: Callable[[int], Command], on_loading: Callable[[LoadProgress], None] | None = None
    ) -> Reply:
        """Send a command and return the worker's reply. Cancelling this task cancels the command.

        Args:
            command: returns the command with the id that it is given.
            on_loading: receives the progress of a `Load`.

        Raises:
            OpError: the worker's error, or `engine_crashed`.
        """
        if self._worker is None:
            raise _crash_error("The inference process has ended.")
        self._next_id += 1
        number = self._next_id
        pending = _PendingRequest(asyncio.get_running_loop().create_future(), on_loading)
        self._requests[number] = pending
        self._worker.send(command(number))
        self._start_timer()
        try:
            return await pending.reply
        except asyncio.CancelledError:
            self._requests.pop(number, None)
            self.cancel(number)
            raise

    def generate(
        self,
        request: GenerationRequest,
        on_event: Callable[[Event], None],
        on_end: Callable[[OpError | None], None],
    ) -> int:
        """Start a generation and return its id; `on_end` is called once, after its last event."""
        self._next_id += 1
        number = self._next_id
        self._streams[number] = _Stream(on_event, on_end)
        if self._worker is None:
            self._end_stream(number, _crash_error("The inference process has ended."))
        else:
            self._worker.send(Generate(number, request))
            self._start_timer()
        return number

    def cancel(self, number: int) -> None:
        """Cancel a generation or a command; a generation still sends its `Finished`."""
        if self._worker is not None:
            self._worker.send(Cancel(number))

    async def wait_exited(self) -> None:
        """If the worker has just died, wait until `on_exit` has been called."""
        if self._worker is not None and self._worker.pid is None:
            await self._worker.wait_reaped()

    async def stop(self, error: OpError) -> None:
        """Stop the worker; pending requests and streams fail with `error`."""
        self._fail_all(error)
        if self._launching is not None:
            await asyncio.wait([self._launching])
        if self._worker is not None:
            self._exit_error = error
            await self._worker.stop()

    def _on_message(self, message: Message) -> None:
        was_unresponsive = self.unresponsive
        self._monitor.on_message(message if isinstance(message, Heartbeat) else None)
        if was_unresponsive and not self.unresponsive:
            self._on_change()
        if isinstance(message, Streamed):
            self._on_event(message)
        elif isinstance(message, RequestFailed):
            self._on_failure(message)
        elif isinstance(message, Heartbeat):
            self.heartbeat = message
            self._on_change()
        elif isinstance(message, Ready):
            self.ready = True
            self.blas = message.blas
            self._monitor.gpu = message.device == "gpu"
            if self._starting is not None and not self._starting.done():
                self._starting.set_result(None)
            self._on_change()
        else:
            pending = self._requests.pop(message.id, None)
            if pending is not None and not pending.reply.done():
                pending.reply.set_result(message)

    def _on_event(self, message: Streamed) -> None:
        stream = self._streams.get(message.id)
        if stream is not None:
            stream.on_event(message.event)
            if isinstance(message.event, Finished):
                self._end_stream(message.id, None)
        elif isinstance(message.event, LoadProgress):
            pending = self._requests.get(message.id)
            if pending is not None and pending.on_loading is not None:
                pending.on_loading(message.event)

    def _on_failure(self, message: RequestFailed) -> None:
        error = message.error
        pending = self._requests.pop(message.id, None)
        if message.id == 0:
            self._exit_error = error
        elif pending is not None:
            if not pending.reply.done():
                pending.reply.set_exception(error)
        else:
            self._end_stream(message.id, error)

    def _end_stream(self, number: int, error: OpError | None) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.on_end(error)
            self._on_change()

    def _on_process_exit(self, status: int) -> None:
        worker, self._worker = self._worker, None
        error = self._exit_error or _crash_error(
            _exit_reason(status, worker.last_log_line if worker is not None else "")
        )
        self.failed = True
        self.ready = False
        self.heartbeat = None
        self.blas = None
        self._fail_all(error)
        self._on_exit(error)
        self._on_change()

    def _fail_all(self, error: OpError) -> None:
        starting, self._starting = self._starting, None
        if starting is not None and not starting.done():
            starting.set_exception(error)
            starting.exception()  # mark as retrieved, in case no task awaits it any more
        for number in list(self._requests):
            reply = self._requests.pop(number).reply
            if not reply.done():
                reply.set_exception(error)
        for number in list(self._streams):
            self._end_stream(number, error)

    # Liveness

    def _start_timer(self) -> None:
        """Check the worker periodically while it has pending work."""
        if self._timer is None:
            self._monitor.start()
            self._checked_at = self._pinged_at = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._check)

    def _check(self) -> None:
        self._timer = None
        starting = self._starting is not None and not self._starting.done()
        pid = self.pid
        if self._worker is None or not (starting or self._requests or self._streams):
            return
        now = time.monotonic()
        was_responsive = not self._monitor.unresponsive
        if pid is not None:
            # Count at most two ticks: after a suspend of this process the worker was not silent that long.
            self._monitor.advance(min(now - self._checked_at, 2 * _TICK_S), pid)
        self._checked_at = now
        reason = self._monitor.stuck_reason()
        if reason is not None:
            self._exit_error = _crash_error(f"The inference process {reason} and was killed.")
            self._worker.kill()
            return
        if self._monitor.silent_s >= _PING_S and now - self._pinged_at >= _PING_S:
            self._pinged_at = now
            self._worker.send(Ping())
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._check)
        if was_responsive and self._monitor.unresponsive:
            self._on_change()


def _crash_error(message: str) -> OpError:
    return OpError(ErrorType.ENGINE_CRASHED, message, remedy=Remedy.SEND_AGAIN)


def _exit_reason(status: int, last_log_line: str) -> str:
    """Return how a process ended, as a sentence.

    Args:
        status: the exit status; negative for a signal.
        last_log_line: its last line on stderr.
    """
    tail = f" Its last log line: {last_log_line[:200]}" if last_log_line else ""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        if -status == signal.SIGKILL:
            return f"The inference process was killed ({name}), often because memory ran out."
        return f"The inference process crashed ({name}).{tail}"
    return f"The inference process ended unexpectedly (status {status}).{tail}"
