"""How the server is set up: where it listens, for whom, and what is wrong with what was typed."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlxk_tui.ops.core.addresses import is_loopback
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.server.http import keys
from mlxk_tui.server.options import ServerOptions, listed
from mlxk_tui.settings import Settings

_PORTS_TRIED = 100


@dataclass(frozen=True)
class Setup:
    """What the pane lets a user set."""

    host: str
    port: int
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    model: str | None = None
    """Model of requests that name none."""
    max_tokens: int | None = None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Name to key."""
    foreign_keys: bool = False
    """Whether the keys come from the environment and cannot be changed here."""

    @property
    def options(self) -> ServerOptions:
        """What the server is told."""
        return ServerOptions(
            host=self.host,
            port=self.port,
            api_keys=self.keys,
            origins=self.origins,
            hosts=self.hosts,
            model=self.model,
            max_tokens=self.max_tokens,
        )


def from_settings(settings: Settings) -> Setup:
    """Return what the settings say, without any key."""
    return Setup(
        host=settings.server_host,
        port=settings.server_port,
        origins=listed(settings.server_origins),
        hosts=listed(settings.server_hosts),
        model=settings.server_model or None,
        max_tokens=settings.server_max_tokens or None,
    )


def read_keys(path: Path, environ: Mapping[str, str] = os.environ) -> tuple[dict[str, str], bool]:
    """Return the keys, and whether the environment gave them.

    Raises:
        OpError: others can read the file, or a key is malformed.
    """
    given = keys.from_environment(environ)
    return (given, True) if given else (keys.read_keys(path), False)


def beyond_loopback(host: str) -> bool:
    """Tell whether an address surely lets other machines in; of other names only binding tells."""
    name = host.strip()
    loopback = is_loopback(name)
    return name.strip("[]") == "" if loopback is None else not loopback


def may_reach_beyond(host: str) -> bool:
    """Tell whether an address or name may let other machines in: any but this machine's own may."""
    name = host.strip()
    loopback = is_loopback(name)
    return name.strip("[]").rstrip(".").lower() != "localhost" if loopback is None else not loopback


def host_problem(text: str) -> str | None:
    """Return why a host cannot be listened on, as a sentence; None where it may."""
    host = text.strip()
    if not host:
        return "Give a host: 127.0.0.1 is this machine alone."
    if len(host) > 253 or any(character.isspace() or not character.isprintable() for character in host):
        return "A host is a name or an address, without blanks."
    if "/" in host:
        return "Give the host alone, without http:// or a path."
    return None


def key_problem(text: str, *, has_key: bool) -> OpError | None:
    """Return why the server may not listen at a host without a key; None where it may."""
    host = text.strip()
    return keys.needs_key(host) if beyond_loopback(host) and not has_key else None


def port_problem(text: str) -> str | None:
    """Return why a port cannot be used, as a sentence; None where it can."""
    try:
        port = int(text.strip())
    except ValueError:
        return "The port is a whole number, such as 8000; 0 takes a free one."
    return None if 0 <= port <= 65535 else "A port lies between 0 (any free one) and 65535."


def origins_problem(text: str) -> str | None:
    """Return what is wrong with a list of origins, as a sentence."""
    for origin in listed(text):
        scheme, _, rest = origin.partition("://")
        if origin != "*" and not (scheme and rest and "/" not in rest and origin.isprintable()):
            return f"'{printable(origin)[:60]}' is no origin: one looks like https://chat.example.org."
    return None


def next_free_port(host: str, port: int) -> int | None:
    """Return the next port after `port` that can be had now; None where there is none near."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port + 1, min(port + 1 + _PORTS_TRIED, 65536)):
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host.strip().strip("[]"), candidate))
            except OSError:
                continue
            return candidate
    return None
