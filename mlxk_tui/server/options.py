"""The options of the server: address, access and limits.

The app's form, the command line of `serve`, the settings and the HTTP server all use `ServerOptions`. The
functions in this module parse its values from user input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mlxk_tui.ops.core.addresses import is_loopback
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable

DEFAULT_PORT = 8000
_MAX_HOST_CHARACTERS = 253
"""Maximum length of a DNS name (RFC 1035, section 2.3.4)."""


@dataclass(frozen=True)
class ServerOptions:
    """Options of a `Server`; `Server.reload` applies new ones while it runs."""

    host: str = "127.0.0.1"
    """Host name or IP address to listen on."""
    port: int = DEFAULT_PORT
    """0 for any free port."""
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """API keys by name; without any, every client on this machine has access."""
    origins: tuple[str, ...] = ()
    """Allowed CORS origins, such as `https://chat.example.org`; `*` allows all."""
    hosts: tuple[str, ...] = ()
    """Allowed names in the `Host` header besides IP addresses, this machine's name and `localhost`."""
    model: str | None = None
    """Model for requests that don't name one."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Aliases and the models they stand for: `gpt-4o` to `mlx-community/Qwen3-8B-4bit`."""
    force: bool = False
    """Whether to load models that don't fit in memory."""
    max_tokens: int | None = None
    """Default for `max_tokens` of requests; None for half of the model's context."""
    max_queue: int = 128
    """Maximum number of generations, queued ones included; more are rejected with 429."""
    max_connections: int = 512
    """Maximum number of connections; one more closes the connection that has been idle the longest."""
    max_body_bytes: int = 16_000_000
    header_timeout_s: float = 15.0
    """Seconds in which the request line and headers must arrive."""
    body_timeout_s: float = 60.0
    """Seconds in which the body must arrive."""
    write_timeout_s: float = 60.0
    """Seconds after which a client that reads nothing is disconnected."""
    keep_alive_s: float = 10.0
    """Seconds without an event after which a stream sends a keep-alive comment."""
    idle_timeout_s: float = 75.0
    """Seconds for which an idle connection stays open."""
    log_prompts: bool = False
    """Whether the request log keeps the text of prompts and responses."""
    log_size: int = 1000
    """Number of finished requests in the request log."""


class Address(NamedTuple):
    """The address of a running server."""

    host: str
    """As configured."""
    port: int
    """The actual port, also if 0 was configured."""

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:8000`."""
        reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound
        host = reachable.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"


def listed(text: str) -> tuple[str, ...]:
    """Split a list at commas and whitespace: origins, hosts."""
    return tuple(text.replace(",", " ").split())


def parse_host(text: str) -> str:
    """Parse the host to listen on. Whether it belongs to this machine is only known after binding.

    Raises:
        OpError: `validation_error` if it can't be a host name or an IP address.
    """
    host = text.strip()
    if not host:
        raise _invalid("Enter a host, such as 127.0.0.1 for this machine alone.")
    if len(host) > _MAX_HOST_CHARACTERS or any(not one.isprintable() or one.isspace() for one in host):
        raise _invalid("A host is a name or an address, without blanks.")
    if "/" in host:
        raise _invalid("Enter the host alone, without http:// or a path.")
    return host


def parse_port(value: str | int) -> int:
    """Parse the port to listen on; 0 means any free port.

    Raises:
        OpError: `validation_error` if it is not a number from 0 to 65535.
    """
    try:
        port = int(value)
    except ValueError:
        raise _invalid("The port must be a whole number, such as 8000; 0 takes a free one.") from None
    if not 0 <= port <= 65535:
        raise _invalid("The port must be between 0 (any free one) and 65535.")
    return port


def parse_origins(text: str) -> tuple[str, ...]:
    """Parse the allowed CORS origins.

    Raises:
        OpError: `validation_error` if one is not an origin.
    """
    origins = tuple(origin.rstrip("/") for origin in listed(text))
    for origin in origins:
        scheme, _, host = origin.partition("://")
        if origin != "*" and not (scheme and host and "/" not in host and origin.isprintable()):
            shown = printable(origin)[:60]
            raise _invalid(f"'{shown}' is not an origin. Write one like https://chat.example.org.")
    return origins


def _invalid(message: str) -> OpError:
    return OpError(ErrorType.VALIDATION_ERROR, message)


def beyond_loopback(host: str) -> bool:
    """Return whether an address is certainly reachable from other machines; False for host names."""
    name = host.strip()
    loopback = is_loopback(name)
    return name.strip("[]") == "" if loopback is None else not loopback


def may_reach_beyond(host: str) -> bool:
    """Return whether a host may be reachable from other machines: any but a loopback one."""
    name = host.strip()
    loopback = is_loopback(name)
    return name.strip("[]").rstrip(".").lower() != "localhost" if loopback is None else not loopback
