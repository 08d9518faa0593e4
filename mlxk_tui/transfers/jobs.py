"""What a transfer is: the job that was asked for, the state it is in, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.remedies import NO_FACTS, ErrorFacts, Remedy
from mlxk_tui.transfers.rates import RateHistory

MAX_FILES = 5_000
"""Files of one transfer that are followed one by one; a repo with more shows the first of them."""
DEFAULT_MESSAGE = "mlxk-tui push"
"""Commit message of a push where none was given."""


class TransferState(str, Enum):
    """Where a transfer stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    FAILED = "failed"
    DONE = "done"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing more happens by itself or by `resume`."""
        return self in {TransferState.DONE, TransferState.CANCELLED}


@dataclass(frozen=True)
class Pull:
    """Fetch a model of the hub into the cache."""

    spec: str
    """`org/name` or `org/name@revision`."""
    doubted: tuple[str, ...] = ()
    """Files in the cache whose bytes are known to be wrong: they are compared with their checksums."""

    @property
    def key(self) -> str:
        """What makes two pulls the same."""
        name, _, revision = self.spec.partition("@")
        return f"pull {name.strip().casefold()}@{revision.strip() or 'main'}"

    @property
    def name(self) -> str:
        """The repo, without the revision; not yet safe to show."""
        return self.spec.partition("@")[0]

    @property
    def revision(self) -> str:
        """The branch, tag or commit; empty where none was given."""
        return self.spec.partition("@")[2]


@dataclass(frozen=True)
class Push:
    """Upload a folder to a private repo of the hub."""

    folder: str
    """Absolute path."""
    repo: str
    """`org/name`."""
    branch: str = "main"
    message: str = DEFAULT_MESSAGE
    create: bool = False
    """Whether repo and branch are made where they do not exist."""
    delete: bool = False
    """Whether files of the branch that the folder lacks are deleted there."""

    @property
    def key(self) -> str:
        """What makes two pushes the same."""
        return f"push {self.repo.casefold()}@{self.branch}"

    @property
    def name(self) -> str:
        """The repo; not yet safe to show."""
        return self.repo

    @property
    def revision(self) -> str:
        """The branch, where it is not the usual one."""
        return "" if self.branch == "main" else self.branch


Job = Pull | Push
"""What can be queued."""


@dataclass(frozen=True)
class Failure:
    """Why the last attempt ended."""

    type: ErrorType
    message: str
    """The cause; not yet safe to show."""
    remedy: Remedy | None = None
    """What to do about it; none in files of versions that kept it in the message."""
    facts: ErrorFacts = NO_FACTS

    @classmethod
    def of(cls, error: OpError) -> Failure:
        """Return what is kept of an error."""
        return cls(error.type, error.message, error.remedy, error.facts)

    @property
    def error(self) -> OpError:
        """The error."""
        return OpError(self.type, self.message, remedy=self.remedy, facts=self.facts)


@dataclass
class FileProgress:
    """How far one file is, in bytes."""

    done: int
    total: int

    @property
    def whole(self) -> bool:
        """Whether nothing of it is missing; while its bytes are being compared that is not known."""
        return self.done >= self.total


@dataclass(eq=False)
class Transfer:
    """One line of the queue; changed by the queue alone, read by whoever shows it."""

    id: str
    job: Job
    state: TransferState = TransferState.WAITING
    added: float = 0.0
    """Seconds since the epoch."""
    ended: float | None = None
    """When it was done, failed or was cancelled, in seconds since the epoch."""
    failure: Failure | None = None
    """Why it failed; of a waiting one, why it has to be tried again."""
    attempts: int = 0
    """Attempts that failed since bytes last moved."""
    bytes_done: int = 0
    bytes_total: int = 0
    """0 while unknown."""
    files_done: int = 0
    files_total: int = 0
    result: str = ""
    """What came of it, in a sentence."""
    stage: str = ""
    """What the operation said it is doing."""
    retry_at: float | None = None
    """When a waiting one is tried again, in seconds of the monotonic clock."""
    furthest: int = 0
    """Most bytes that any attempt had."""
    files: dict[str, FileProgress] = field(default_factory=dict)
    """Files that this process has seen move, by path, in the order in which they began."""
    rates: RateHistory = field(default_factory=RateHistory)

    @cached_property
    def key(self) -> str:
        """What makes two transfers the same."""
        return self.job.key

    @property
    def is_push(self) -> bool:
        """Whether bytes go to the hub."""
        return isinstance(self.job, Push)

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 1; None while the size is unknown."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else None

    def seconds_left(self, now: float) -> float | None:
        """Return how long it takes at the recent rate; None while that cannot be told."""
        rate = self.rates.rate(now)
        if not self.bytes_total or rate <= 0 or self.rates.young(now):
            return None
        return max(0, self.bytes_total - self.bytes_done) / rate
