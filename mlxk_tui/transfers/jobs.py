"""Data classes of transfers: jobs, states, failures and progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import NO_FACTS, ErrorFacts, Remedy
from mlxk_tui.transfers.rates import RateHistory

MAX_FILES = 5_000
"""Maximum number of files of a transfer with progress of their own; other files only count in the total."""
DEFAULT_MESSAGE = "mlxk-tui push"
"""Default commit message of a push."""


class TransferState(str, Enum):
    """The state of a transfer."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"
    DONE = "done"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether it is done or cancelled."""
        return self in {TransferState.DONE, TransferState.CANCELLED}


@dataclass(frozen=True)
class Pull:
    """Download a model from the Hub into the cache."""

    spec: str
    """`org/name` or `org/name@revision`."""
    doubted: tuple[str, ...] = ()
    """Paths of cached files that may be corrupt: their checksums are verified."""
    rate_limit: float | None = None
    """Maximum bytes per second of this pull; None for no limit of its own."""

    @property
    def key(self) -> str:
        """A key that is equal for pulls of the same revision."""
        name, _, revision = self.spec.partition("@")
        return f"pull {name.strip().casefold()}@{revision.strip() or 'main'}"

    @property
    def name(self) -> str:
        """The repo without the revision; may contain control characters."""
        return self.spec.partition("@")[0]

    @property
    def revision(self) -> str:
        """The branch, tag or commit; empty if none is given."""
        return self.spec.partition("@")[2]


@dataclass(frozen=True)
class Push:
    """Upload a folder to a private repo on the Hub."""

    folder: str
    """Absolute path."""
    repo: str
    """`org/name`."""
    branch: str = "main"
    message: str = DEFAULT_MESSAGE
    create: bool = False
    """Whether to create the repo and the branch if they don't exist."""
    delete: bool = False
    """Whether to delete files of the branch that aren't in the folder."""

    @property
    def key(self) -> str:
        """A key that is equal for pushes to the same branch."""
        return f"push {self.repo.casefold()}@{self.branch}"

    @property
    def name(self) -> str:
        """The repo; may contain control characters."""
        return self.repo

    @property
    def revision(self) -> str:
        """The branch; empty for `main`."""
        return "" if self.branch == "main" else self.branch


Job = Pull | Push
"""A job of the queue."""


@dataclass(frozen=True)
class Failure:
    """The error of the last attempt."""

    type: ErrorType
    message: str
    """The cause; may contain control characters."""
    remedy: Remedy | None = None
    """The remedy; None in files of older versions, which have it in the message."""
    facts: ErrorFacts = NO_FACTS

    @classmethod
    def from_error(cls, error: OpError) -> Failure:
        """Convert an error to a failure."""
        return cls(error.type, error.message, error.remedy, error.facts)

    @property
    def error(self) -> OpError:
        """The failure as an error."""
        return OpError(self.type, self.message, remedy=self.remedy, facts=self.facts)


@dataclass
class FileProgress:
    """Progress of one file, in bytes."""

    done: int
    total: int

    @property
    def complete(self) -> bool:
        """Whether all bytes are there; their checksum may not be verified yet."""
        return self.done >= self.total


@dataclass(eq=False)
class Transfer:
    """One entry of the queue; only the queue changes it."""

    id: str
    job: Job
    state: TransferState = TransferState.WAITING
    added: float = 0.0
    """Seconds since the epoch."""
    ended: float | None = None
    """When it finished, failed or was cancelled, in seconds since the epoch."""
    failure: Failure | None = None
    """Why it failed, or why it is waiting for another attempt."""
    attempts: int = 0
    """Number of failed attempts since the last progress."""
    bytes_done: int = 0
    bytes_total: int = 0
    """0 if unknown."""
    files_done: int = 0
    files_total: int = 0
    result: str = ""
    """The result, as a sentence."""
    stage: str = ""
    """The current step, as the operation reports it."""
    retry_at: float | None = None
    """When the next attempt starts, in seconds of the monotonic clock."""
    furthest: int = 0
    """Maximum of `bytes_done` over all attempts."""
    files: dict[str, FileProgress] = field(default_factory=dict)
    """Progress by path, of the files that this process has transferred, in order of their start."""
    rates: RateHistory = field(default_factory=RateHistory)

    @cached_property
    def key(self) -> str:
        """A key that is equal for the same transfers; see `Pull.key` and `Push.key`."""
        return self.job.key

    @property
    def is_push(self) -> bool:
        """Whether it is an upload."""
        return isinstance(self.job, Push)

    @property
    def fraction(self) -> float | None:
        """The completed fraction, 0 to 1; None if the size is unknown."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else None

    def seconds_left(self, now: float) -> float | None:
        """Return the remaining time at the recent rate; None if it can't be estimated yet."""
        rate = self.rates.rate(now)
        if not self.bytes_total or rate <= 0 or self.rates.warming_up(now):
            return None
        return max(0, self.bytes_total - self.bytes_done) / rate
