"""HTTP connections that can be aborted: sockets, TLS and proxies under the standard library's client.

Each connection belongs to one thread, which reads from the socket with blocking calls: this takes a tenth
of the processor time of an event loop for each gigabyte, and leaves the event loop to the user interface.
`abort` can be called by another thread and ends any waiting call.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import select
import socket
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from mlxk_tui.ops.download.transport import socks
from mlxk_tui.ops.download.transport.errors import (
    ConnectionFailedError,
    ConnectionStoppedError,
    FatalConnectionError,
)
from mlxk_tui.ops.download.transport.http_proxy import open_http_tunnel, proxy_credentials
from mlxk_tui.ops.hub import proxies

_SLICE_S = 0.1
_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port; a token is sent only to the origin that it belongs to."""

    scheme: str
    host: str
    port: int

    @staticmethod
    def from_url(url: SplitResult) -> Origin:
        """Return the origin of an http(s) address; raise ValueError if it has none."""
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("not an http address")
        return Origin(url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80))

    @property
    def host_header(self) -> str:
        """The value of `Host`; signed addresses require it without a default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


class ConnectionPool:
    """Creates connections, and has what they share: resolved names, TLS settings, proxies.

    Args:
        connect_s: time-out in seconds for each step of a connection: name resolution, TCP, TLS.
        read_s: time-out in seconds without data on a connection.
    """

    def __init__(self, connect_s: float, read_s: float) -> None:
        self.connect_s = connect_s
        self.read_s = read_s
        self._ready: list[DownloadConnection] = []
        self._closed = False
        self._lock = threading.Lock()
        self._addresses: dict[tuple[str, int], list[tuple[int, tuple[object, ...]]]] = {}
        self._context: ssl.SSLContext | None = None
        self._proxies = urllib.request.getproxies()

    def prepare(self, origin: Origin, count: int) -> None:
        """Connect to an origin in threads, to save the round trips later; failures are ignored."""

        def connect() -> None:
            connection = DownloadConnection(self)
            try:
                connection.connect(origin)
            except (ConnectionFailedError, FatalConnectionError, OSError):
                return
            with self._lock:
                if in_time := not self._closed:
                    self._ready.append(connection)
            if not in_time:
                connection.close()

        for number in range(count):
            threading.Thread(target=connect, name=f"mlxk-prepare-{number}", daemon=True).start()

    def new_connection(self) -> DownloadConnection:
        """Return a prepared connection, or a new one, which connects when it is first used."""
        with self._lock:
            return self._ready.pop() if self._ready else DownloadConnection(self)

    def close(self) -> None:
        """Close the prepared connections that nobody uses."""
        with self._lock:
            self._closed, unused, self._ready = True, self._ready, []
        for connection in unused:
            connection.close()

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings with the system's certificates, or certifi's if there are none."""
        with self._lock:
            if self._context is None:
                context = ssl.create_default_context()
                if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_FILE" not in os.environ:
                    with contextlib.suppress(ImportError, OSError):
                        import certifi  # a dependency of huggingface_hub

                        context.load_verify_locations(certifi.where())
                self._context = context
            return self._context

    def proxy(self, origin: Origin) -> SplitResult | None:
        """Return the proxy that the environment (or macOS) sets for an origin, or None."""
        address = self._proxies.get(origin.scheme) or self._proxies.get("all")
        if not address or urllib.request.proxy_bypass(origin.host_header):
            return None
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        if proxy.scheme not in {"http", *socks.SCHEMES} or not proxy.hostname:
            raise FatalConnectionError(
                f"the proxy scheme '{proxy.scheme}' is not supported, only {proxies.SUPPORTED_SCHEMES}"
            )
        return proxy

    def resolve(
        self, host: str, port: int, connection: DownloadConnection
    ) -> list[tuple[int, tuple[object, ...]]]:
        """Resolve a host name within the connection time-out.

        The system's resolver cannot be interrupted: it runs in a thread that is abandoned on a time-out.
        """
        key = (host, port)
        with self._lock:
            if key in self._addresses:
                return self._addresses[key]
        found: list[list[tuple[int, tuple[object, ...]]] | OSError] = []
        done = threading.Event()

        def look_up() -> None:
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                found.append([(family, address) for family, _, _, _, address in infos])
            except (OSError, UnicodeError) as error:
                found.append(OSError(str(error)))
            done.set()

        threading.Thread(target=look_up, name="mlxk-resolve", daemon=True).start()
        until = time.monotonic() + self.connect_s
        while not done.wait(_SLICE_S):
            connection.check()
            if time.monotonic() > until:
                raise ConnectionFailedError(f"the name {host} could not be resolved in time")
        addresses = found[0]
        if isinstance(addresses, OSError) or not addresses:
            raise ConnectionFailedError(f"the name {host} could not be resolved")
        with self._lock:
            self._addresses[key] = addresses
        return addresses

    def forget_addresses(self, host: str, port: int) -> None:
        """Discard the addresses of a name, so that it is resolved again."""
        with self._lock:
            self._addresses.pop((host, port), None)


class DownloadConnection:
    """The connections of one thread, at most one for each origin."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._open: dict[Origin, http.client.HTTPConnection] = {}
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._stopped = False
        self._timed_out = False
        self.deadline = float("inf")
        """Monotonic time at which the current call times out; another thread checks it."""
        self.response_s = 0.0
        """Seconds between the last request and the headers of its response."""

    def check(self) -> None:
        """Raise ConnectionStoppedError if the connection was aborted."""
        if self._stopped:
            raise ConnectionStoppedError

    def abort(self, *, timed_out: bool = False) -> None:
        """Abort the current call; from any thread.

        Args:
            timed_out: abort it as a time-out, after which the connection can be used again.
        """
        with self._lock:
            if timed_out:
                self._timed_out = True
            else:
                self._stopped = True
            if self._socket is not None:
                # Not SSLSocket.shutdown, which removes the TLS layer that another thread is reading from.
                with contextlib.suppress(OSError, ValueError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self, origin: Origin | None = None) -> None:
        """Close the connection to one origin, or all of them."""
        for which in [origin] if origin is not None else list(self._open):
            connection = self._open.pop(which, None)
            if connection is not None:
                with self._lock:
                    if connection.sock is self._socket:
                        self._socket = None
                connection.close()

    def connect(self, origin: Origin) -> None:
        """Connect to an origin without a request.

        Raises:
            ConnectionFailedError, FatalConnectionError, ConnectionStoppedError
        """
        self._open[origin] = self._connect(origin)

    def request(
        self, url: SplitResult, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """Send a GET request; return the response, whose body is not read yet, and its connection.

        Raises:
            ConnectionFailedError, FatalConnectionError, ConnectionStoppedError
        """
        origin = Origin.from_url(url)
        self._timed_out = False
        self.check()
        existing = self._open.get(origin)
        if existing is not None:
            try:
                return self._exchange(existing, origin, url, headers), existing
            except ConnectionFailedError:
                # The server may have closed an idle connection, which is not an error.
                self.close(origin)
                if self._timed_out:
                    raise
        new = self._connect(origin)
        self._open[origin] = new
        try:
            return self._exchange(new, origin, url, headers), new
        except BaseException:
            self.close(origin)
            raise

    def read(self, response: http.client.HTTPResponse, length: int) -> bytes:
        """Read the available bytes of a body, at most `length`; wait for at least one. Empty at the end."""
        self.deadline = time.monotonic() + self._pool.read_s
        try:
            return response.read1(length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._to_error(error) from None
        finally:
            self.deadline = float("inf")

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        origin: Origin,
        url: SplitResult,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        with self._lock:
            self._socket = connection.sock
        self.check()
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        proxy = self._pool.proxy(origin)
        if proxy is not None and proxy.scheme == "http" and origin.scheme == "http":
            target = f"http://{origin.host_header}{target}"
            headers = {**headers, **proxy_credentials(proxy)}
        # One deadline for request and headers, so that slow headers do not prolong it.
        self.deadline = time.monotonic() + self._pool.read_s
        try:
            connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", origin.host_header)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            sent = time.monotonic()
            response = connection.getresponse()
            self.response_s = time.monotonic() - sent
            return response
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._to_error(error) from None
        finally:
            self.deadline = float("inf")

    def _connect(self, origin: Origin) -> http.client.HTTPConnection:
        proxy = self._pool.proxy(origin)
        tunnel = proxy is not None and proxy.scheme in socks.SCHEMES
        host, port = origin.host, origin.port
        if proxy is not None:
            host, port = proxy.hostname or "", proxy.port or (socks.PORT if tunnel else 80)
        raw = self._open_socket(host, port)
        try:
            raw.settimeout(self._pool.read_s)
            self.deadline = time.monotonic() + self._pool.connect_s
            if proxy is not None and tunnel:
                socks.open_tunnel(raw, origin.host, origin.port, proxy)
            if origin.scheme == "https":
                if proxy is not None and not tunnel:
                    open_http_tunnel(raw, origin.host, origin.port, proxy)
                context = self._pool.context()
                secured = context.wrap_socket(raw, server_hostname=origin.host, do_handshake_on_connect=False)
                raw = secured
                self._set_socket(secured)
                secured.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raw.close()
            raise FatalConnectionError(
                f"the certificate of {origin.host} is not valid ({error.verify_message})"
            ) from None
        except socks.LoginError as error:
            raw.close()
            raise FatalConnectionError(f"the proxy {host}: {error}") from None
        except socks.SocksError as error:
            raw.close()
            self.check()
            raise ConnectionFailedError(f"the proxy {host}: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raw.close()
            raise self._to_error(error) from None
        except BaseException:
            raw.close()
            raise
        finally:
            self.deadline = float("inf")
        connection = http.client.HTTPConnection(origin.host, origin.port)
        connection.auto_open = 0  # otherwise it would reconnect by itself, without proxy and TLS settings
        connection.sock = raw
        return connection

    def _open_socket(self, host: str, port: int) -> socket.socket:
        addresses = self._pool.resolve(host, port, self)
        last = "no response"
        until = time.monotonic() + self._pool.connect_s
        for number, (family, address) in enumerate(addresses):
            left = (until - time.monotonic()) / (len(addresses) - number)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # an address family that this machine does not support
                last = error.strerror or str(error)
                continue
            try:
                self._set_socket(sock)
                failure = self._connect_socket(sock, address, left)
            except BaseException:
                sock.close()
                raise
            if failure is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            sock.close()
            last = failure
        self.check()
        self._pool.forget_addresses(host, port)
        raise ConnectionFailedError(f"{host} cannot be reached: {last}")

    def _connect_socket(self, sock: socket.socket, address: tuple[object, ...], seconds: float) -> str | None:
        """Connect, checking for an abort every tenth of a second; return the error's text, or None."""
        sock.setblocking(False)
        code = sock.connect_ex(address)
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while code in _CONNECTING:
            self.check()
            if time.monotonic() > until:
                return "no response"
            if poll.poll(_SLICE_S * 1000):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                break
        return os.strerror(code) if code else None

    def _set_socket(self, sock: socket.socket) -> None:
        with self._lock:
            self._socket = sock
        self.check()

    def _to_error(self, error: Exception) -> Exception:
        if self._stopped:
            return ConnectionStoppedError()
        if self._timed_out or isinstance(error, TimeoutError):
            return ConnectionFailedError("the connection timed out")
        if isinstance(error, http.client.HTTPException):
            return ConnectionFailedError("the response is not valid HTTP, or was truncated")
        if isinstance(error, OSError) and error.strerror:
            return ConnectionFailedError(f"the connection was interrupted ({error.strerror})")
        return ConnectionFailedError("the connection was interrupted")
