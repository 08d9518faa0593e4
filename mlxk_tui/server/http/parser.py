"""Parses request bodies: small ones in place, large ones in worker processes that don't block the loop."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Generic, TypeVar

from mlxk_tui.ops.core.child_process import ChildProcess
from mlxk_tui.ops.core.errors import ErrorType
from mlxk_tui.server.errors import BUSY, ApiError, invalid
from mlxk_tui.server.http.json_body import ParseResult, is_cheap, parse_request
from mlxk_tui.server.requests.schema import Schema

_MAX_WORKERS = 2
"""Maximum number of worker processes; they are started on demand."""
_TIMEOUT_S = 30.0
"""Seconds to parse a body: the worst case of 16 MB takes two seconds on an idle machine."""
_READ_BYTES = 1 << 20

S = TypeVar("S", bound=Schema)


class ParsedRequest(Generic[S]):
    """A valid request, which may still be pickled.

    Args:
        model: its field `model`.
        longest_ids: the number of token ids of its longest prompt.
        unpack: returns the request.
    """

    def __init__(self, model: str | None, longest_ids: int, unpack: Callable[[], S]) -> None:
        self.model = model
        self.longest_ids = longest_ids
        self.unpack = unpack


class RequestParser:
    """Parses request bodies, a few large ones at a time. Not thread-safe: use it in one event loop."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._slots: asyncio.Semaphore | None = None
        self._closed = False

    @property
    def pids(self) -> list[int]:
        """Process ids of the running workers."""
        return [worker.pid for worker in (*self._idle, *self._busy) if worker.pid is not None]

    async def parse(self, schema: type[S], raw: bytes) -> ParsedRequest[S]:
        """Parse a body as JSON and validate it against a schema.

        Raises:
            ApiError: 400 if it is invalid, 413 if it has too many values or takes too long to parse, 503 if
                no worker can be started or the server stops.
        """
        if is_cheap(raw):
            request = parse_request(schema, raw)
            return ParsedRequest(getattr(request, "model", None), request.longest_ids, lambda: request)
        path = f"{schema.__module__}:{schema.__name__}"
        result = await self._parse_in_worker(path.encode("ascii"), raw)
        if result.error is not None:
            status, kind, message, param = result.error
            raise ApiError(status, kind, message, param=param)
        data = result.request
        return ParsedRequest(
            result.model,
            result.longest_ids,
            lambda: pickle.loads(data),  # noqa: S301 - our own process wrote it
        )

    async def close(self) -> None:
        """Stop the workers; bodies that are being parsed fail."""
        self._closed = True
        for worker in (*self._idle, *self._busy):
            self._end(worker)
        self._idle.clear()
        while self._ending:
            await asyncio.wait(self._ending)
        self._closed = False

    def _end(self, worker: _Worker) -> None:
        """Stop a worker, and wait for its exit in the background."""
        task = asyncio.create_task(worker.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _parse_in_worker(self, schema: bytes, raw: bytes) -> ParseResult:
        if self._slots is None:
            self._slots = asyncio.Semaphore(_MAX_WORKERS)
        async with self._slots:
            for _ in range(_MAX_WORKERS + 1):  # killed workers must not make the request fail
                worker = self._idle.pop() if self._idle else _Worker()
                self._busy.add(worker)
                try:
                    result = await asyncio.wait_for(worker.parse(schema + b"\n" + raw), _TIMEOUT_S)
                except asyncio.TimeoutError:
                    self._end(worker)
                    message = "The body takes too long to parse. Send a smaller one."
                    raise invalid(message, status=413) from None
                except (OSError, EOFError, asyncio.IncompleteReadError):
                    self._end(worker)
                    if self._closed:
                        break
                except BaseException:
                    self._end(worker)  # cancelled: it would send this result to the next request
                    raise
                else:
                    if result.exits:
                        self._end(worker)
                    else:
                        self._idle.append(worker)
                    return result
                finally:
                    self._busy.discard(worker)
        kind = BUSY if self._closed else ErrorType.INTERNAL_ERROR.value
        raise ApiError(
            503,
            kind,
            "The process that parses large requests has exited. Try again.",
            retry_after_s=2,
        )


class _Worker:
    """One worker process, started with its first body."""

    def __init__(self) -> None:
        self._process: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, or None if it isn't running."""
        return self._process.pid if self._process is not None else None

    async def parse(self, frame: bytes) -> ParseResult:
        """Send a frame (see `parser_worker`) and return the result.

        Raises:
            OSError, EOFError, asyncio.IncompleteReadError: the process has exited.
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
        data = await process.stdout.readexactly(int.from_bytes(head, "big"))
        result = pickle.loads(data)  # noqa: S301 - as above
        if not isinstance(result, ParseResult):
            raise EOFError
        return result

    async def end(self) -> None:
        """Kill the process and wait for its exit."""
        if self._process is not None:
            await self._process.end()
