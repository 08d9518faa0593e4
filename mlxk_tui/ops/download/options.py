"""Source, options and result of a download."""

from __future__ import annotations

from dataclasses import dataclass

from mlxk_tui.ops.download.rate_limit import RateLimit


@dataclass(frozen=True)
class DownloadSource:
    """A commit of a repo on a hub."""

    endpoint: str
    """`https://host[:port][/prefix]`."""
    repo: str
    """Full name, such as `org/name`."""
    commit: str
    """40 hex digits."""
    token: str | None = None
    """Sent only to the endpoint's own origin."""

    def __repr__(self) -> str:
        # Never includes the token.
        return f"DownloadSource({self.endpoint!r}, {self.repo!r}, {self.commit!r})"


@dataclass(frozen=True)
class DownloadOptions:
    """Limits and time-outs of a download; the defaults are for interactive use."""

    connections: int = 16
    """Maximum number of connections; the number in use is determined while downloading."""
    files: int = 16
    """Maximum number of files downloaded at once."""
    connect_s: float = 8.0
    """Time-out in seconds for each step of a connection: name resolution, TCP, TLS."""
    read_s: float = 10.0
    """Time-out in seconds without data on a connection."""
    silence_s: float = 25.0
    """Time-out in seconds without new bytes on any connection, after which the download fails."""
    attempts: int = 6
    """Maximum number of consecutive failures of a file without new bytes."""
    backoff_s: float = 0.5
    """Approximate seconds before the first retry; doubles with each consecutive failure."""
    longest_backoff_s: float = 8.0
    longest_wait_s: float = 90.0
    """Longest wait in seconds that the hub may request (Retry-After); a longer one is an error."""
    checkpoint_bytes: int = 64 << 20
    """Bytes of a file between two checkpoints, which survive a loss of power."""
    checkpoint_s: float = 15.0
    """Seconds between two checkpoints of a slow download."""
    links: bool = True
    """Whether snapshots contain links to blobs; otherwise, or if links are unsupported, the files."""
    rate_limits: tuple[RateLimit, ...] = ()
    """Limits that this download respects; each can be shared with other downloads."""
    redownload: frozenset[str] = frozenset()
    """Etags of blobs to download again although they exist, to repair them."""


@dataclass(frozen=True)
class DownloadResult:
    """Counts of a finished download."""

    bytes_downloaded: int
    """Bytes received over the network, including discarded ones."""
    bytes_reused: int
    """Bytes on disk before, in complete and partial blobs."""
    files: int
    """Number of files in the snapshot."""
