"""What a server is told: where it listens, whom it lets in, and how much it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_PORT = 8000


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
    """Return the parts of a list that commas or blanks part: origins, hosts."""
    return tuple(text.replace(",", " ").split())
