"""The configuration of a server: where it listens, whom it lets in, and how much it takes.

The app's form, the command line of `serve`, the settings and the HTTP server all work with `ServerOptions`.
The functions below make its values of what a person types.
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
"""Of a DNS name."""


@dataclass(frozen=True)
class ServerOptions:
    """Everything that can be set; `Server.reload` takes another one while it runs."""

    host: str = "127.0.0.1"
    """Name or address to listen on."""
    port: int = DEFAULT_PORT
    """0 takes a free one."""
    api_keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name to key; without any, everybody on this machine is let in."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may call, such as `https://chat.example.org`; `*` is every one."""
    hosts: tuple[str, ...] = ()
    """Names that the `Host` header may have, beyond addresses, this machine's name and `localhost`."""
    model: str | None = None
    """Model of requests that name none."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Names that requests may use, to models: `gpt-4o` to `mlx-community/Qwen3-8B-4bit`."""
    force: bool = False
    """Whether models are loaded that do not fit into memory."""
    max_tokens: int | None = None
    """Most tokens of an answer where the request does not say; None is half of the model's context."""
    max_queue: int = 128
    """Most generations at once, those that wait included; one more is refused with 429."""
    max_connections: int = 512
    """Most connections at once; one more takes the place of the one that waited longest for a request."""
    max_body_bytes: int = 16_000_000
    header_timeout_s: float = 15.0
    """How long a request line with its headers may take to arrive."""
    body_timeout_s: float = 60.0
    """How long a body may take to arrive."""
    write_timeout_s: float = 60.0
    """How long a client may not read before it counts as gone."""
    keep_alive_s: float = 10.0
    """Silence in a stream after which a comment is sent."""
    idle_timeout_s: float = 75.0
    """How long a connection without a request stays open."""
    log_prompts: bool = False
    """Whether the request log keeps the text of prompts and answers."""
    log_size: int = 1000
    """Finished requests that the request log keeps."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    """As given."""
    port: int
    """The real one."""

    @property
    def url(self) -> str:
        """The base of all routes, such as `http://127.0.0.1:8000`."""
        reachable = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - shown, not bound
        host = reachable.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"


def listed(text: str) -> tuple[str, ...]:
    """Return the items of a list that is separated by commas or blanks: origins, hosts."""
    return tuple(text.replace(",", " ").split())


def parse_host(text: str) -> str:
    """Return the host to listen on that was typed; whether it is one of this machine's only binding tells.

    Raises:
        OpError: `validation_error`.
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
    """Return the port to listen on.

    Raises:
        OpError: `validation_error`.
    """
    try:
        port = int(value)
    except ValueError:
        raise _invalid("The port must be a whole number, such as 8000; 0 takes a free one.") from None
    if not 0 <= port <= 65535:
        raise _invalid("The port must be between 0 (any free one) and 65535.")
    return port


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins of web pages that may call.

    Raises:
        OpError: `validation_error`.
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
    """Tell whether an address surely lets other machines in; of a name only binding tells."""
    name = host.strip()
    loopback = is_loopback(name)
    return name.strip("[]") == "" if loopback is None else not loopback


def may_reach_beyond(host: str) -> bool:
    """Tell whether an address or name may let other machines in: any but this machine's own may."""
    name = host.strip()
    loopback = is_loopback(name)
    return name.strip("[]").rstrip(".").lower() != "localhost" if loopback is None else not loopback
