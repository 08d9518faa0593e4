"""A real SOCKS5 proxy on this machine, which records its connections."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator


class SocksProxy(socketserver.ThreadingTCPServer):
    """Supports RFC 1928 with names and addresses, and RFC 1929 if an account is given."""

    daemon_threads = True

    def __init__(self, account: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.account = account
        self.reached: list[tuple[str, int]] = []
        """Hosts, as they were asked for, and ports."""

    @property
    def address(self) -> str:
        """Host and port, for a proxy URL."""
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(socketserver.StreamRequestHandler):
    server: SocksProxy

    def handle(self) -> None:
        _, count = self.rfile.read(2)
        methods = self.rfile.read(count)
        wanted = 2 if self.server.account else 0
        if wanted not in methods:
            self.wfile.write(b"\x05\xff")
            return
        self.wfile.write(bytes([5, wanted]))
        if wanted and not self._logged_in():
            return
        *_, kind = self.rfile.read(4)
        if kind == 3:
            host = self.rfile.read(self.rfile.read(1)[0]).decode()
        else:
            host = socket.inet_ntop(*{1: (socket.AF_INET, self.rfile.read(4))}[kind])
        port = int.from_bytes(self.rfile.read(2), "big")
        self.server.reached.append((host, port))
        try:
            target = socket.create_connection((host, port))
        except OSError:
            self.wfile.write(b"\x05\x05\x00\x01" + bytes(6))
            return
        with target:
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
            back = threading.Thread(target=_pump, args=(target, self.connection), daemon=True)
            back.start()
            _pump(self.connection, target)
            back.join()

    def _logged_in(self) -> bool:
        _, length = self.rfile.read(2)
        user = self.rfile.read(length).decode()
        password = self.rfile.read(self.rfile.read(1)[0]).decode()
        right = (user, password) == self.server.account
        self.wfile.write(b"\x01\x00" if right else b"\x01\x01")
        return right


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def socks_proxy(account: tuple[str, str] | None = None) -> Iterator[SocksProxy]:
    """Run a proxy during the block."""
    with SocksProxy(account) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
