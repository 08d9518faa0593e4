"""The worker's side of the pipe: commands come in on a thread of their own, messages go out in one write."""

from __future__ import annotations

import json
import os
import queue
import threading
from typing import Any, BinaryIO

from mlxk_tui.engine.connection.wire import from_json, to_json
from mlxk_tui.engine.generation import Delta
from mlxk_tui.engine.inference.vitals import Vitals
from mlxk_tui.engine.protocol import Cancel, Command, Message, Ping, Streamed
from mlxk_tui.ops.health.batching_verdicts import BatchingTrial


def guard_stdout() -> int:
    """Return a descriptor for messages; from here on whatever else prints to stdout lands on stderr."""
    kept = os.dup(1)
    os.set_inheritable(kept, False)
    os.dup2(2, 1)
    return kept


class Inbox:
    """What waits for the MLX thread."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """Commands, and requests that came out of preparation."""
        self.cancelled: set[int] = set()
        """Ids to be given up; known at once, also to what has not come to its turn."""
        self.trial: BatchingTrial | None = None
        """What must not look like a crash when the process ends because its parent has."""

    def put(self, command: Command) -> None:
        """Queue a command; called by the reading thread."""
        if isinstance(command, Cancel):
            self.cancelled.add(command.id)
        self.queue.put(command)


def listen(stream: BinaryIO, inbox: Inbox, vitals: Vitals) -> None:
    """Put every command from `stream` into the inbox; when it ends the whole process ends at once.

    The parent is then gone, or wants this one gone, and whatever the other threads do is for nobody.
    """

    def work() -> None:
        try:
            for line in stream:
                command = from_json(json.loads(line))
                if isinstance(command, Ping):
                    vitals.ask()
                else:
                    inbox.put(command)
                vitals.aside()
        finally:
            if inbox.trial is not None:
                inbox.trial.end()
            os._exit(0)

    threading.Thread(target=work, name="commands", daemon=True).start()


class Outbox:
    """Collects messages and writes them to a descriptor; any thread may use it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def put(self, message: Message) -> None:
        """Take a message along with the next write."""
        line = json.dumps(_fields(message), separators=(",", ":"))
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write what was put; blocks while the parent does not read."""
        with self._lock:
            if not self._lines:
                return
            data = memoryview(("\n".join(self._lines) + "\n").encode())
            self._lines.clear()
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except BrokenPipeError:  # the parent is gone: at once, an exit by the rules may take seconds
                os._exit(0)

    def send(self, message: Message) -> None:
        """Write a message at once."""
        self.put(message)
        self.flush()


def _fields(message: Message) -> dict[str, Any]:
    """Return what `to_json` does; the one message that is sent per token is put together by hand."""
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
