"""Connections to a hub that can be stopped: sockets, TLS and proxies under the standard HTTP client.

Each connection is used by one thread, with blocking reads straight from the socket: a gigabyte costs
a tenth of the processor time that it costs through an event loop, and none of the loop's time, which
belongs to the screen. `abort` from another thread ends whatever the connection waits for.
"""

from __future__ import annotations

import base64
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
from urllib.parse import SplitResult, unquote, urlsplit

from mlxk_tui.ops.download import socks
from mlxk_tui.ops.hub import proxies

_SLICE_S = 0.1
_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY}


class ConnectionStoppedError(Exception):
    """The connection was asked to stop."""


class WireError(Exception):
    """No connection, or it broke; worth another attempt. The text ends a sentence about it."""


class TrustError(Exception):
    """The other side is not who it should be, or the proxy is of an unknown kind; no retry helps."""


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port: what a token may be sent to."""

    scheme: str
    host: str
    port: int

    @staticmethod
    def of(url: SplitResult) -> Origin:
        """Return the origin of an http(s) address; ValueError where it has none."""
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("not an http address")
        return Origin(url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80))

    @property
    def host_header(self) -> str:
        """Return the value of `Host`: signed addresses need it without a default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"


class ConnectionPool:
    """What all connections of a download share: names that were looked up, trust, proxies."""

    def __init__(self, connect_s: float, read_s: float) -> None:
        self.connect_s = connect_s
        self.read_s = read_s
        self._lock = threading.Lock()
        self._addresses: dict[tuple[str, int], list[tuple[int, tuple[object, ...]]]] = {}
        self._context: ssl.SSLContext | None = None
        self._proxies = urllib.request.getproxies()

    def context(self) -> ssl.SSLContext:
        """Return the TLS settings: the system's certificates, or certifi's where it has none."""
        with self._lock:
            if self._context is None:
                context = ssl.create_default_context()
                if not context.cert_store_stats()["x509_ca"] and "SSL_CERT_FILE" not in os.environ:
                    with contextlib.suppress(ImportError, OSError):
                        import certifi  # there with huggingface_hub, though not ours

                        context.load_verify_locations(certifi.where())
                self._context = context
            return self._context

    def proxy(self, origin: Origin) -> SplitResult | None:
        """Return the proxy that the environment (or macOS) names for an origin."""
        address = self._proxies.get(origin.scheme) or self._proxies.get("all")
        if not address or urllib.request.proxy_bypass(origin.host_header):
            return None
        proxy = urlsplit(address if "://" in address else f"http://{address}")
        if proxy.scheme not in {"http", *socks.SCHEMES} or not proxy.hostname:
            raise TrustError(
                f"proxies of the kind '{proxy.scheme}' are not supported, but {proxies.SUPPORTED_SCHEMES} is"
            )
        return proxy

    def resolve(self, host: str, port: int, line: DownloadConnection) -> list[tuple[int, tuple[object, ...]]]:
        """Look a name up, without waiting longer than a connection may.

        The system's look-up cannot be stopped: a thread of its own does it and is left behind.
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
            line.check()
            if time.monotonic() > until:
                raise WireError(f"the name {host} could not be looked up in time")
        answer = found[0]
        if isinstance(answer, OSError) or not answer:
            raise WireError(f"the name {host} could not be looked up")
        with self._lock:
            self._addresses[key] = answer
        return answer

    def forget(self, host: str, port: int) -> None:
        """Look a name up again next time."""
        with self._lock:
            self._addresses.pop((host, port), None)


class DownloadConnection:
    """The connections of one thread, at most one to each origin."""

    def __init__(self, wires: ConnectionPool) -> None:
        self._wires = wires
        self._open: dict[Origin, http.client.HTTPConnection] = {}
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._stopped = False
        self._overdue = False
        self.deadline = float("inf")
        """Time (monotonic) at which what it waits for is late; another thread watches it."""

    def check(self) -> None:
        """Raise StoppedError when the connection shall stop."""
        if self._stopped:
            raise ConnectionStoppedError

    def abort(self, *, overdue: bool = False) -> None:
        """End what the connection waits for; from any thread.

        Args:
            overdue: end it as a time-out that may be tried again, not for good.
        """
        with self._lock:
            if overdue:
                self._overdue = True
            else:
                self._stopped = True
            if self._socket is not None:
                # Not SSLSocket.shutdown, which takes the TLS layer away from under the reading thread.
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

    def request(
        self, url: SplitResult, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        """Send a GET and return the answer with its headers read; the body is still to come.

        Raises:
            WireError, TrustError, StoppedError
        """
        origin = Origin.of(url)
        self._overdue = False
        self.check()
        kept = self._open.get(origin)
        if kept is not None:
            try:
                return self._exchange(kept, origin, url, headers), kept
            except WireError:
                # A connection that was kept may have been closed meanwhile, which is nobody's fault.
                self.close(origin)
                if self._overdue:
                    raise
        fresh = self._connect(origin)
        self._open[origin] = fresh
        try:
            return self._exchange(fresh, origin, url, headers), fresh
        except BaseException:
            self.close(origin)
            raise

    def read(self, response: http.client.HTTPResponse, length: int) -> bytes:
        """Read what is there of a body, at least a byte and at most `length`; empty at its end."""
        self.deadline = time.monotonic() + self._wires.read_s
        try:
            return response.read1(length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from None
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
        proxy = self._wires.proxy(origin)
        if proxy is not None and proxy.scheme == "http" and origin.scheme == "http":
            target = f"http://{origin.host_header}{target}"
            headers = {**headers, **_proxy_credentials(proxy)}
        # One deadline for all of it: a trickle of headers is as good as none.
        self.deadline = time.monotonic() + self._wires.read_s
        try:
            connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", origin.host_header)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            return connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from None
        finally:
            self.deadline = float("inf")

    def _connect(self, origin: Origin) -> http.client.HTTPConnection:
        proxy = self._wires.proxy(origin)
        tunnel = proxy is not None and proxy.scheme in socks.SCHEMES
        host, port = origin.host, origin.port
        if proxy is not None:
            host, port = proxy.hostname or "", proxy.port or (socks.PORT if tunnel else 80)
        raw = self._dial(host, port)
        try:
            raw.settimeout(self._wires.read_s)
            self.deadline = time.monotonic() + self._wires.connect_s
            if proxy is not None and tunnel:
                socks.open_tunnel(raw, origin.host, origin.port, proxy)
            if origin.scheme == "https":
                if proxy is not None and not tunnel:
                    _open_tunnel(raw, origin, proxy)
                context = self._wires.context()
                secured = context.wrap_socket(raw, server_hostname=origin.host, do_handshake_on_connect=False)
                raw = secured
                self._watch(secured)
                secured.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raw.close()
            raise TrustError(
                f"the certificate of {origin.host} is not valid ({error.verify_message})"
            ) from None
        except socks.LoginError as error:
            raw.close()
            raise TrustError(f"the proxy {host}: {error}") from None
        except socks.SocksError as error:
            raw.close()
            self.check()
            raise WireError(f"the proxy {host}: {error}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raw.close()
            raise self._broken(error) from None
        except BaseException:
            raw.close()
            raise
        finally:
            self.deadline = float("inf")
        connection = http.client.HTTPConnection(origin.host, origin.port)
        connection.auto_open = 0  # it would connect again by itself, past all of the above
        connection.sock = raw
        return connection

    def _dial(self, host: str, port: int) -> socket.socket:
        addresses = self._wires.resolve(host, port, self)
        last = "it does not answer"
        until = time.monotonic() + self._wires.connect_s
        for number, (family, address) in enumerate(addresses):
            left = (until - time.monotonic()) / (len(addresses) - number)
            try:
                sock = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # a family that this machine does not have
                last = error.strerror or str(error)
                continue
            try:
                self._watch(sock)
                failure = self._establish(sock, address, left)
            except BaseException:
                sock.close()
                raise
            if failure is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            sock.close()
            last = failure
        self._wires.forget(host, port)
        raise WireError(f"{host} cannot be reached: {last}")

    def _establish(self, sock: socket.socket, address: tuple[object, ...], seconds: float) -> str | None:
        """Connect, looking every tenth of a second whether to stop; return why it failed, or None."""
        sock.setblocking(False)
        code = sock.connect_ex(address)
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        while code in _CONNECTING:
            self.check()
            if time.monotonic() > until:
                return "it does not answer"
            if poll.poll(_SLICE_S * 1000):
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                break
        return os.strerror(code) if code else None

    def _watch(self, sock: socket.socket) -> None:
        with self._lock:
            self._socket = sock
        self.check()

    def _broken(self, error: Exception) -> Exception:
        if self._stopped:
            return ConnectionStoppedError()
        if self._overdue or isinstance(error, TimeoutError):
            return WireError("it fell silent")
        if isinstance(error, http.client.HTTPException):
            return WireError("its answer is not HTTP, or was cut off")
        if isinstance(error, OSError) and error.strerror:
            return WireError(f"the connection broke ({error.strerror})")
        return WireError("the connection broke")


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _open_tunnel(sock: socket.socket, origin: Origin, proxy: SplitResult) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    lines = [f"CONNECT {host}:{origin.port} HTTP/1.1", f"Host: {host}:{origin.port}"]
    lines += [f"{name}: {value}" for name, value in _proxy_credentials(proxy).items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
    answer = http.client.HTTPResponse(sock, method="CONNECT")
    answer.begin()
    if answer.status != 200:
        if answer.status == 407:
            raise TrustError("the proxy wants a name and a password")
        raise WireError(f"the proxy answered {answer.status}")
