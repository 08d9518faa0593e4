"""Simulates the network to a far hub: latency, rates and resets between a client and the local hub.

This proxy has a port for every port of the hub, and replaces the hub's addresses in redirects with its own.
Each connection has a limited rate, all together can have one, and every byte is delayed by half a round trip.
As with TCP, a new connection takes one round trip before its first request arrives; TLS is not simulated.
With `slow_start` a connection starts with ten packets per round trip, and its rate doubles from there.

It runs in a thread (`with FarLine(…)`), or as a process that exits when its stdin is closed:
`python -m benchmarks.far_line '{"ports": [40001, 40002], "round_trip_s": 0.1, "rate": 12e6}'` prints its
ports as JSON and then reads one change per line, such as `{"rate": 5e4}` or `{"reset": true}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

_FIRST_WINDOW = 14_600
"""Bytes of the ten packets that a connection starts with (RFC 6928)."""
_PIECE_S = 0.02
"""Seconds that each forwarded piece takes."""
_SMALLEST_PIECE = 4096
_QUEUED_S = 0.5
"""Seconds at full rate that are buffered per connection, in addition to a round trip."""


class FarLine:
    """The proxy; its attributes can be changed while it runs."""

    def __init__(
        self,
        ports: list[int],
        *,
        round_trip_s: float = 0.1,
        rate: float | None = 12e6,
        total: float | None = None,
        slow_start: bool = False,
    ) -> None:
        """Create a proxy that does not run yet.

        Args:
            ports: the ports of the hub on 127.0.0.1.
            round_trip_s: round-trip time in seconds.
            rate: bytes per second of a connection, towards the client.
            total: bytes per second of all connections together.
            slow_start: whether connections start slowly.
        """
        self.targets = ports
        self.round_trip_s = round_trip_s
        self.rate = rate
        self.total = total
        self.slow_start = slow_start
        self.ports: list[int] = []
        """The ports of the proxy, in the order of the hub's ports."""
        self.bytes_sent = 0
        """Bytes sent to clients."""
        self.free_at = 0.0
        """Time at which all connections together may send again."""
        self.open: set[_Client] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="far-line", daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> FarLine:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def address(self, url: str) -> str:
        """Return an address of the hub with the port of the proxy."""
        return self.translated(url.encode()).decode()

    def reset(self) -> None:
        """Reset all connections at once, like a change of network."""
        done: Future[None] = Future()

        def work() -> None:
            for client in list(self.open):
                client.reset()
            done.set_result(None)

        self._loop.call_soon_threadsafe(work)
        done.result(20)

    def change(self, figures: dict[str, Any]) -> None:
        """Change attributes by name; `reset` resets all connections."""
        for name in ("rate", "total", "round_trip_s", "slow_start"):
            if name in figures:
                setattr(self, name, figures[name])
        if figures.get("reset"):
            self.reset()

    def translated(self, text: bytes) -> bytes:
        """Return text with the hub's ports replaced by those of the proxy, which have the same length."""
        for theirs, ours in zip(self.targets, self.ports, strict=True):
            for host in (b"127.0.0.1", b"localhost"):
                text = text.replace(b"%s:%d" % (host, theirs), b"%s:%d" % (host, ours))
        return text

    async def _listen(self) -> None:
        for target in self.targets:
            server = await self._loop.create_server(
                lambda target=target: _Client(self, target),  # type: ignore[misc]  # a default binds the loop's value
                "127.0.0.1",
                0,
            )
            self._servers.append(server)
            self.ports.append(server.sockets[0].getsockname()[1])
        if [len(str(port)) for port in self.ports] != [len(str(port)) for port in self.targets]:
            raise RuntimeError("the ports differ in length: addresses cannot be replaced in place")

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for client in list(self.open):
            client.reset()
        await asyncio.sleep(0)


class _Direction:
    """The delayed bytes in one direction, with the times at which they arrive."""

    def __init__(self, line: FarLine, source: asyncio.Transport, *, paced: bool, not_before: float) -> None:
        self._line = line
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._paced = paced
        self._free_at = not_before
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ends_at: float | None = None
        self._paused = False
        self.target: asyncio.Transport | None = None
        """The receiver; None until it is connected."""

    def feed(self, data: bytes) -> None:
        """Schedule bytes that the source has just sent."""
        now = self._loop.time()
        at = 0
        while at < len(data):
            rate = self._rate()
            step = len(data) if rate is None else max(_SMALLEST_PIECE, int(rate * _PIECE_S))
            piece = data[at : at + step]
            at += len(piece)
            begin = max(now, self._free_at)
            if rate is not None:
                self._free_at = begin + len(piece) / rate
            if self._paced and self._line.total is not None:
                self._line.free_at = max(begin, self._line.free_at) + len(piece) / self._line.total
                self._free_at = max(self._free_at, self._line.free_at)
            self._queue.append((max(begin, self._free_at) + self._line.round_trip_s / 2, piece))
            self._queued += len(piece)
            self._sent += len(piece)
        self._limit()
        self._wake()

    def end(self) -> None:
        """Close the receiver once everything has arrived."""
        self._ends_at = self._queue[-1][0] if self._queue else self._loop.time()
        self._wake()

    def cancel(self) -> None:
        """Discard the bytes that have not arrived."""
        if self._timer is not None:
            self._timer.cancel()
        self._queue.clear()

    def _rate(self) -> float | None:
        rate = self._line.rate if self._paced else None
        if self._paced and self._line.slow_start and self._line.round_trip_s:
            begun = (_FIRST_WINDOW + self._sent) / self._line.round_trip_s
            rate = begun if rate is None else min(rate, begun)
        return rate

    def _limit(self) -> None:
        """Pause reading while more is buffered than a real network would hold."""
        rate = self._rate()
        most = (1 << 22) if rate is None else rate * (self._line.round_trip_s + _QUEUED_S) + (1 << 18)
        full = self._queued > most
        if full != self._paused and not self._source.is_closing():
            self._paused = full
            if full:
                self._source.pause_reading()
            else:
                self._source.resume_reading()

    def _wake(self) -> None:
        if self._timer is None and self.target is not None and (self._queue or self._ends_at is not None):
            due = self._queue[0][0] if self._queue else self._ends_at
            self._timer = self._loop.call_at(due or 0.0, self._arrive)

    def _arrive(self) -> None:
        self._timer = None
        if self.target is None or self.target.is_closing():
            self.cancel()
            return
        now = self._loop.time() + 0.001
        pieces = []
        while self._queue and self._queue[0][0] <= now:
            pieces.append(self._queue.popleft()[1])
        if pieces:
            data = b"".join(pieces)
            self._queued -= len(data)
            self.target.write(data)
            if self._paced:
                self._line.bytes_sent += len(data)
            self._limit()
        if not self._queue and self._ends_at is not None:
            self.target.close()
            return
        self._wake()


class _Client(asyncio.Protocol):
    """A connection of a client, and its connection to the hub."""

    def __init__(self, line: FarLine, target: int) -> None:
        self._line = line
        self._port = target
        self._up: _Direction | None = None
        self._transport: asyncio.Transport | None = None
        self._hub: _Hub | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the hub; the first request arrives after the simulated handshake."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._line.open.add(self)
        loop = asyncio.get_running_loop()
        self._up = _Direction(
            self._line, transport, paced=False, not_before=loop.time() + self._line.round_trip_s
        )
        self._opening = loop.create_task(self._open(transport, self._up))

    async def _open(self, transport: asyncio.Transport, up: _Direction) -> None:
        loop = asyncio.get_running_loop()
        try:
            up.target, self._hub = await loop.create_connection(
                lambda: _Hub(self._line, transport), "127.0.0.1", self._port
            )
        except OSError:
            transport.abort()
            return
        up._wake()

    def data_received(self, data: bytes) -> None:
        """Forward a request."""
        if self._up is not None:
            self._up.feed(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Abort the connection to the hub; bytes that have not arrived are lost."""
        self._line.open.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        if self._up is not None:
            self._up.cancel()
            if self._up.target is not None:
                self._up.target.abort()

    def reset(self) -> None:
        """Reset the connection."""
        if self._transport is not None:
            self._transport.abort()


class _Hub(asyncio.Protocol):
    """The connection to the hub that belongs to a client."""

    def __init__(self, line: FarLine, client: asyncio.Transport) -> None:
        self._line = line
        self._client = client
        self._down: _Direction | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start forwarding responses."""
        assert isinstance(transport, asyncio.Transport)
        self._down = _Direction(self._line, transport, paced=True, not_before=0.0)
        self._down.target = self._client

    def data_received(self, data: bytes) -> None:
        """Forward a response."""
        if self._down is not None:
            self._down.feed(self._line.translated(data) if data.startswith(b"HTTP/1.1") else data)

    def connection_lost(self, error: Exception | None) -> None:
        """Close the client's connection once everything has arrived."""
        if self._down is not None:
            self._down.end()


def main() -> int:
    """Run as a process."""
    figures = json.loads(sys.argv[1])
    with FarLine(figures.pop("ports"), **figures) as line:
        print(json.dumps(line.ports), flush=True)
        for text in sys.stdin:
            line.change(json.loads(text))
            print(json.dumps({"bytes_sent": line.bytes_sent}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
