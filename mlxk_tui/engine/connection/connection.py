"""The conversation with the worker process: who asked what, what came back, and whether it still lives."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlxk_tui.engine.connection.liveness import Patience, Watch
from mlxk_tui.engine.connection.process import WorkerProcess
from mlxk_tui.engine.generation import Event, Finished, Generation, Loading
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
    RequestFault,
    Streamed,
    Tokenized,
)
from mlxk_tui.ops.contract.matrices import Blas
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import Remedy

_TICK_S = 0.25
_PING_S = 2.0
"""Seconds of silence after which a worker that owes something is asked how it is; a busy one says so."""

Reply = Loaded | Done | Counted | Tokenized | Detokenized | Embedded


@dataclass(eq=False)
class _Question:
    answer: asyncio.Future[Reply]
    on_loading: Callable[[Loading], None] | None


@dataclass(eq=False)
class _Stream:
    on_event: Callable[[Event], None]
    on_end: Callable[[OpError | None], None]


class WorkerConnection:
    """One worker at a time; a new one on demand after the last has ended.

    Args:
        on_change: called when anything below has changed.
        on_lost: called with the reason when the worker is gone, after all questions and streams have failed.
        patience: when a worker that owes something is stuck, and killed.
        environ: environment of the worker; that of this process by default.
    """

    def __init__(
        self,
        on_change: Callable[[], None],
        on_lost: Callable[[OpError], None],
        *,
        patience: Patience,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.beat: Heartbeat | None = None
        """What the worker last told of itself."""
        self.ready = False
        """Whether the worker has started up."""
        self.blas: Blas | None = None
        """How the worker multiplies matrices, where that is in question."""
        self.failed = False
        """Whether the last worker ended by itself."""
        self._on_change = on_change
        self._on_lost = on_lost
        self._watch = Watch(patience)
        self._environ = environ
        self._worker: WorkerProcess | None = None
        self._starting: asyncio.Future[None] | None = None
        self._launching: asyncio.Task[None] | None = None
        self._questions: dict[int, _Question] = {}
        self._streams: dict[int, _Stream] = {}
        self._next_id = 0
        self._fault: OpError | None = None
        self._ticked = self._pinged = 0.0
        self._tick: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the worker while it lives."""
        return self._worker.pid if self._worker is not None else None

    @property
    def streams(self) -> int:
        """Generations that run."""
        return len(self._streams)

    @property
    def patience(self) -> Patience:
        """When a worker is stuck; may be changed at any time."""
        return self._watch.patience

    @patience.setter
    def patience(self, patience: Patience) -> None:
        self._watch.patience = patience

    @property
    def unresponsive(self) -> bool:
        """Whether the worker owes something and has not moved for seconds."""
        return self._tick is not None and self._watch.unresponsive

    async def start(self) -> None:
        """Have a worker that is ready.

        Raises:
            OpError: `dependency_missing`, `engine_crashed`.
        """
        if self._worker is None:
            self._fault = None
            self._worker = WorkerProcess(self._on_message, self._exited)
            self._watch = Watch(self._watch.patience)
            self._starting = asyncio.get_running_loop().create_future()
            self._launching = asyncio.create_task(self._launch(self._worker))
        if self._starting is not None:
            await asyncio.shield(self._starting)

    async def _launch(self, worker: WorkerProcess) -> None:
        """Start a worker; in a task of its own, as who asked for it may go away half-way."""
        try:
            await worker.start(self._environ)
        except OSError as error:
            self._worker = None
            self._fail(_crashed(f"No inference process could be started: {error.strerror or error}."))
        else:
            self._arm()
        self._on_change()

    async def ask(
        self, command: Callable[[int], Command], on_loading: Callable[[Loading], None] | None = None
    ) -> Reply:
        """Send the command made with a new id and return its answer; cancelling gives the question up.

        Raises:
            OpError: what the worker says, or `engine_crashed`.
        """
        if self._worker is None:
            raise _crashed("The inference process has ended.")
        self._next_id += 1
        number = self._next_id
        question = _Question(asyncio.get_running_loop().create_future(), on_loading)
        self._questions[number] = question
        self._worker.send(command(number))
        self._arm()
        try:
            return await question.answer
        except asyncio.CancelledError:
            self._questions.pop(number, None)
            self.cancel(number)
            raise

    def generate(
        self,
        request: Generation,
        on_event: Callable[[Event], None],
        on_end: Callable[[OpError | None], None],
    ) -> int:
        """Start a generation and return its id; `on_end` is called once, after its last event."""
        self._next_id += 1
        number = self._next_id
        self._streams[number] = _Stream(on_event, on_end)
        if self._worker is None:
            self._end(number, _crashed("The inference process has ended."))
        else:
            self._worker.send(Generate(number, request))
            self._arm()
        return number

    def cancel(self, number: int) -> None:
        """Give up a generation or a question; a generation still tells its `Finished`."""
        if self._worker is not None:
            self._worker.send(Cancel(number))

    async def settled(self) -> None:
        """Wait until the end of a worker that has just died was told."""
        if self._worker is not None and self._worker.pid is None:
            await self._worker.reaped()

    async def stop(self, error: OpError) -> None:
        """End the worker; whatever is outstanding fails with `error`."""
        self._fail(error)
        if self._launching is not None:
            await asyncio.wait([self._launching])
        if self._worker is not None:
            self._fault = error
            await self._worker.stop()

    def _on_message(self, message: Message) -> None:
        moves = self.unresponsive
        self._watch.hear(message if isinstance(message, Heartbeat) else None)
        if moves and not self.unresponsive:
            self._on_change()
        if isinstance(message, Streamed):
            self._on_event(message)
        elif isinstance(message, RequestFault):
            self._on_fault(message)
        elif isinstance(message, Heartbeat):
            self.beat = message
            self._on_change()
        elif isinstance(message, Ready):
            self.ready = True
            self.blas = message.blas
            self._watch.gpu = message.device == "gpu"
            if self._starting is not None and not self._starting.done():
                self._starting.set_result(None)
            self._on_change()
        else:
            question = self._questions.pop(message.id, None)
            if question is not None and not question.answer.done():
                question.answer.set_result(message)

    def _on_event(self, message: Streamed) -> None:
        stream = self._streams.get(message.id)
        if stream is not None:
            stream.on_event(message.event)
            if isinstance(message.event, Finished):
                self._end(message.id, None)
        elif isinstance(message.event, Loading):
            question = self._questions.get(message.id)
            if question is not None and question.on_loading is not None:
                question.on_loading(message.event)

    def _on_fault(self, message: RequestFault) -> None:
        error = message.error
        question = self._questions.pop(message.id, None)
        if message.id == 0:
            self._fault = error
        elif question is not None:
            if not question.answer.done():
                question.answer.set_exception(error)
        else:
            self._end(message.id, error)

    def _end(self, number: int, error: OpError | None) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream.on_end(error)
            self._on_change()

    def _exited(self, status: int) -> None:
        worker, self._worker = self._worker, None
        error = self._fault or _crashed(_exit_reason(status, worker.last_words if worker is not None else ""))
        self.failed = True
        self.ready = False
        self.beat = None
        self.blas = None
        self._fail(error)
        self._on_lost(error)
        self._on_change()

    def _fail(self, error: OpError) -> None:
        starting, self._starting = self._starting, None
        if starting is not None and not starting.done():
            starting.set_exception(error)
            starting.exception()  # seen, should nobody wait any more
        for number in list(self._questions):
            answer = self._questions.pop(number).answer
            if not answer.done():
                answer.set_exception(error)
        for number in list(self._streams):
            self._end(number, error)

    # Signs of life

    def _arm(self) -> None:
        """Watch the worker as long as it owes something."""
        if self._tick is None:
            self._watch.start()
            self._ticked = self._pinged = time.monotonic()
            self._tick = asyncio.get_running_loop().call_later(_TICK_S, self._look)

    def _look(self) -> None:
        self._tick = None
        starting = self._starting is not None and not self._starting.done()
        pid = self.pid
        if self._worker is None or not (starting or self._questions or self._streams):
            return
        now = time.monotonic()
        moves = not self._watch.unresponsive
        if pid is not None:
            # A parent that was itself stopped or asleep wakes up late: that is no silence of the worker's.
            self._watch.pass_time(min(now - self._ticked, 2 * _TICK_S), pid)
        self._ticked = now
        verdict = self._watch.verdict()
        if verdict is not None:
            self._fault = _crashed(f"The inference process {verdict} and was ended.")
            self._worker.kill()
            return
        if self._watch.silent_s >= _PING_S and now - self._pinged >= _PING_S:
            self._pinged = now
            self._worker.send(Ping())
        self._tick = asyncio.get_running_loop().call_later(_TICK_S, self._look)
        if moves and self._watch.unresponsive:
            self._on_change()


def _crashed(what: str) -> OpError:
    return OpError(ErrorType.ENGINE_CRASHED, f"{what}", remedy=Remedy.SEND_AGAIN)


def _exit_reason(status: int, last_words: str) -> str:
    """Return how a process ended, as a sentence."""
    tail = f" Its last words: {last_words[:200]}" if last_words else ""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        if -status == signal.SIGKILL:
            return f"The inference process was killed ({name}), often because memory ran out."
        return f"The inference process crashed ({name}).{tail}"
    return f"The inference process ended by itself (status {status}).{tail}"
