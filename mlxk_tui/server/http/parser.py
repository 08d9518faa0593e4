"""Parses bodies: small ones here, large ones in processes of their own, so that the loop never stands."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Generic, TypeVar

from mlxk_tui.ops.core.child_process import ChildProcess
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.server.errors import BUSY, ApiError, invalid
from mlxk_tui.server.http.parsing import Outcome, is_cheap, parse_request
from mlxk_tui.server.requests.schema import Schema

_PROCESSES = 2
"""Most processes; they start when they are needed."""
_LIMIT_S = 30.0
"""How long a body may take: the worst of 16 MB takes two seconds on a machine that does nothing else."""
_READ_BYTES = 1 << 20

S = TypeVar("S", bound=Schema)


class Parsed(Generic[S]):
    """A valid request, which may not be unpacked yet.

    Args:
        model: the model that it names.
        longest_ids: most token ids of one of its prompts.
        unpack: returns the request.
    """

    def __init__(self, model: str | None, longest_ids: int, unpack: Callable[[], S]) -> None:
        self.model = model
        self.longest_ids = longest_ids
        self.unpack = unpack


class RequestParser:
    """Parses bodies for one server, a few large ones at once; belongs to one event loop."""

    def __init__(self) -> None:
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._turns: asyncio.Semaphore | None = None
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the processes that live."""
        return [process.pid for process in (*self._idle, *self._busy) if process.pid is not None]

    async def parse(self, schema: type[S], raw: bytes) -> Parsed[S]:
        """Return the request that a body is.

        Raises:
            ApiError: 400 it is malformed, 413 it holds too much or takes too long, 503 no process can be
                had, or the server stops.
        """
        if is_cheap(raw):
            request = parse_request(schema, raw)
            return Parsed(getattr(request, "model", None), request.longest_ids, lambda: request)
        outcome = await self._elsewhere(f"{schema.__module__}:{schema.__name__}".encode("ascii"), raw)
        if outcome.error is not None:
            status, kind, message, param = outcome.error
            raise ApiError(status, kind, message, param=param)
        packed = outcome.request
        return Parsed(outcome.model, outcome.longest_ids, lambda: pickle.loads(packed))  # noqa: S301 - our own process wrote it

    async def close(self) -> None:
        """End the processes; bodies that are being parsed fail."""
        self._closed = True
        for process in (*self._idle, *self._busy):
            self._end(process)
        self._idle.clear()
        while self._ending:
            await asyncio.wait(self._ending)
        self._closed = False

    def _end(self, process: _Process) -> None:
        """End a process, and wait for it beside other work."""
        task = asyncio.create_task(process.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _elsewhere(self, schema: bytes, raw: bytes) -> Outcome:
        if self._turns is None:
            self._turns = asyncio.Semaphore(_PROCESSES)
        async with self._turns:
            for _ in range(_PROCESSES + 1):  # processes that somebody has killed cost no request
                process = self._idle.pop() if self._idle else _Process()
                self._busy.add(process)
                try:
                    outcome = await asyncio.wait_for(process.ask(schema + b"\n" + raw), _LIMIT_S)
                except asyncio.TimeoutError:
                    self._end(process)
                    raise invalid("The body takes too long to be parsed. Send less.", status=413) from None
                except (OSError, EOFError, asyncio.IncompleteReadError):
                    self._end(process)
                    if self._closed:
                        break
                except BaseException:
                    self._end(process)  # given up half-way: what it says next is nobody's
                    raise
                else:
                    if outcome.leaves:
                        self._end(process)
                    else:
                        self._idle.append(process)
                    return outcome
                finally:
                    self._busy.discard(process)
        kind = BUSY if self._closed else ErrorType.INTERNAL_ERROR.value
        raise ApiError(
            503,
            kind,
            "The process that parses large requests has ended. Try again.",
            retry_after_s=2,
        )


class _Process:
    """One process, started with its first body."""

    def __init__(self) -> None:
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self._process.pid if self._process is not None else None

    async def ask(self, frame: bytes) -> Outcome:
        """Return what becomes of a body.

        Raises:
            OSError, EOFError, asyncio.IncompleteReadError: the process has ended.
        """
        if self._process is None:
            self._process = await ChildProcess.start(
                "mlxk_tui.server.http.parser_worker", line_bytes=_READ_BYTES
            )
        process = self._process
        process.write(len(frame).to_bytes(4, "big"))
        process.write(frame)
        await process.drain()
        head = await process.stdout.readexactly(4)
        outcome = pickle.loads(await process.stdout.readexactly(int.from_bytes(head, "big")))  # noqa: S301 - as above
        if not isinstance(outcome, Outcome):
            raise EOFError
        return outcome

    async def end(self) -> None:
        """End it at once, and wait until it is gone."""
        if self._process is not None:
            await self._process.end()
