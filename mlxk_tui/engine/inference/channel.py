"""The worker's side of the pipe: a thread reads commands; messages are collected and written together."""

from __future__ import annotations

import json
import os
import queue
import threading
from typing import Any, BinaryIO

from mlxk_tui.engine.connection.wire import from_json, to_json
from mlxk_tui.engine.generation import Delta
from mlxk_tui.engine.inference.heartbeat import HeartbeatReporter
from mlxk_tui.engine.protocol import Cancel, Command, Message, Ping, Streamed
from mlxk_tui.ops.health.batching_verdicts import BatchingTrial


def redirect_stdout() -> int:
    """Return a new descriptor of stdout for messages, and redirect everything else on stdout to stderr."""
    descriptor = os.dup(1)
    os.set_inheritable(descriptor, False)
    os.dup2(2, 1)
    return descriptor


class Inbox:
    """The queue of the MLX thread."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """Commands and prepared requests."""
        self.cancelled: set[int] = set()
        """Ids of cancelled requests; set before the `Cancel` reaches the head of the queue."""
        self.trial: BatchingTrial | None = None
        """The running batching trial, which must not count as a crash if the process ends with its parent."""

    def put(self, command: Command) -> None:
        """Queue a command; called by the reader thread."""
        if isinstance(command, Cancel):
            self.cancelled.add(command.id)
        self.queue.put(command)


def start_reader(stream: BinaryIO, inbox: Inbox, reporter: HeartbeatReporter) -> None:
    """Start the reader thread, which puts each command from `stream` into the inbox.

    When the stream ends, the parent has ended or is stopping this worker. The process then exits at once.
    """

    def work() -> None:
        try:
            for line in stream:
                command = from_json(json.loads(line))
                if isinstance(command, Ping):
                    reporter.request_heartbeat()
                else:
                    inbox.put(command)
                reporter.exclude_thread()
        finally:
            if inbox.trial is not None:
                inbox.trial.end()
            os._exit(0)

    threading.Thread(target=work, name="commands", daemon=True).start()


class Outbox:
    """Collects messages and writes them to a descriptor. It is thread-safe.

    Args:
        descriptor: where to write.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Add a message to the next write."""
        line = json.dumps(_fields(message), separators=(",", ":"))
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write the collected messages; blocks while the pipe is full."""
        with self._lock:
            if not self._lines:
                return
            data = memoryview(("\n".join(self._lines) + "\n").encode())
            self._lines.clear()
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except BrokenPipeError:  # the parent has ended; an orderly exit may take seconds
                os._exit(0)

    def send(self, message: Message) -> None:
        """Write a message immediately, after those that were collected."""
        self.put(message)
        self.flush()


def _fields(message: Message) -> dict[str, Any]:
    """Return the same as `to_json`, with a fast path for the message that is sent for each token."""
    if isinstance(message, Streamed) and isinstance(message.event, Delta):
        delta = message.event
        if not (delta.tool_calls or delta.token_ids or delta.logprobs):
            event: dict[str, Any] = {"is": "Delta", "tokens": delta.tokens}
            if delta.text:
                event["text"] = delta.text
            if delta.reasoning:
                event["reasoning"] = delta.reasoning
            return {"is": "Streamed", "id": message.id, "event": event}
    return to_json(message)
