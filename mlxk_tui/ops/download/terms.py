"""The words of a download: where from, how, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DownloadSource:
    """One commit of a repo on a hub."""

    endpoint: str
    """`https://host[:port][/prefix]`."""
    repo: str
    """Full name, `org/name`."""
    commit: str
    """40 hex digits."""
    token: str | None = None
    """Sent to the endpoint's own origin and to nobody else."""

    def __repr__(self) -> str:
        return f"Source({self.endpoint!r}, {self.repo!r}, {self.commit!r})"  # never the token


@dataclass(frozen=True)
class DownloadOptions:
    """How a download goes about it; the defaults are for people."""

    connections: int = 16
    """Most connections at once; how many are used is found out while downloading."""
    files: int = 8
    """Most files at once."""
    connect_s: float = 8.0
    """Seconds that making a connection may take: each of name, TCP, TLS."""
    read_s: float = 10.0
    """Seconds that a connection may be silent."""
    silence_s: float = 25.0
    """Seconds without one new byte on any connection after which the hub counts as unreachable."""
    attempts: int = 6
    """Failures in a row of one file, with nothing new in between, after which it is given up."""
    backoff_s: float = 0.5
    """Seconds before the first retry, give or take; doubles with every failure in a row."""
    longest_backoff_s: float = 8.0
    longest_wait_s: float = 90.0
    """Most seconds that the hub may ask to wait (Retry-After); more is an error that says so."""
    checkpoint_bytes: int = 64 << 20
    """Bytes of a file between two marks that hold after a loss of power."""
    checkpoint_s: float = 15.0
    """Seconds between two such marks where bytes come slowly."""
    links: bool = True
    """Whether snapshots hold links to blobs; False, or a file system without links, moves the files."""
    distrust: frozenset[str] = frozenset()
    """Etags whose blobs are fetched anew, although they are there: to repair them."""


@dataclass(frozen=True)
class Downloaded:
    """What a download did."""

    bytes_downloaded: int
    """Bytes that came over the network and were kept or thrown away."""
    bytes_reused: int
    """Bytes that were there before, in whole blobs or in parts."""
    files: int
    """Files that are now in the snapshot."""
