"""Records trials of BLAS libraries by file, processor, environment and MLX version.

The file belongs to this program; deleting it costs one more trial. It does not determine what is loaded:
libraries are searched each time, and only the found ones are looked up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import platformdirs

from mlxk_tui.ops.blas.libraries import BlasLibrary
from mlxk_tui.ops.core.files import replace_file

FOLDER_VARIABLE = "MLXK_BLAS_TRIALS"
"""Environment variable: the folder for recorded trials, or `off`."""
_FORMAT = 2
"""Incremented when the trial becomes stricter."""
_MAX_BYTES = 1_000_000
_MAX_ENTRIES = 64
_RETRY_S = 3600.0
"""Seconds after which a trial is repeated that may have failed because of a busy machine."""
_ENVIRONMENT = ("OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "OMP_", "KMP_", "GOMP_")
"""Prefixes of variables that affect a library."""
_CPUINFO_BYTES = 16_384
_CHANGING = (b"processor", b"cpu MHz", b"bogomips", b"BogoMIPS", b"apicid", b"initial apicid", b"core id")
"""Fields of /proc/cpuinfo that differ between cores or change over time."""


class TrialVerdict(str, Enum):
    """Outcome of trying a library in a process of its own."""

    GOOD = "good"
    UNUSABLE = "unusable"
    """It cannot be loaded, or lacks the functions."""
    DIED = "died"
    WRONG = "wrong"
    """It computes wrong results."""
    SLOW = "slow"
    """It is not faster than MLX's own product."""
    HUNG = "hung"

    @property
    def is_transient(self) -> bool:
        """Whether a busy machine may be the cause."""
        return self in (TrialVerdict.SLOW, TrialVerdict.HUNG)


@dataclass(frozen=True)
class Trial:
    """Outcome and measured speed of one library."""

    verdict: TrialVerdict
    detail: str = ""
    """Name and version of a good library, else what happened, without a full stop."""
    gain: float = 0.0
    """Speed of a prompt's product relative to MLX's own."""
    speed: float = 0.0
    """Geometric mean over products with one, eight and 256 rows, in billions of operations a second."""
    at: float = 0.0
    """Time of the trial, in seconds since the epoch."""


class TrialStore:
    """The recorded trials.

    Args:
        mlx: the version of MLX.
        environ: variables that name the folder and affect the libraries; by default those of this process.
        cpuinfo: path of the kernel's description of the processor.
    """

    def __init__(
        self, mlx: str, environ: Mapping[str, str] | None = None, cpuinfo: str = "/proc/cpuinfo"
    ) -> None:
        env = os.environ if environ is None else environ
        folder = env.get(FOLDER_VARIABLE) or platformdirs.user_cache_dir("mlxk-tui", appauthor=False)
        self.path = None if folder.lower() == "off" else os.path.join(os.path.expanduser(folder), "blas.json")
        """Path of the file; None records nothing."""
        variables = sorted(f"{name}={env[name]}" for name in env if name.startswith(_ENVIRONMENT))
        self._environment = [str(_FORMAT), mlx, _processor_id(cpuinfo), *variables]
        self._trials: dict[str, Trial] = {}
        self._files: dict[str, list[str]] = {}
        """Stat and content hash of each file, which avoids reading 25 MB every time."""
        self._changed = False
        self.read()

    def read(self) -> None:
        """Load the recorded trials; an unusable file counts as empty."""
        try:
            if self.path is None or os.path.getsize(self.path) > _MAX_BYTES:
                return
            with open(self.path, encoding="utf-8") as stream:
                content = json.load(stream)
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                return
            for key, value in content["trials"].items():
                self._trials[key] = _parse_trial(value)
            for path, (stamp, digest) in content["files"].items():
                self._files[path] = [str(stamp), str(digest)]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return

    def get(self, library: BlasLibrary) -> Trial | None:
        """Return the trial of a library in its current state; None if it must be tried."""
        if not self._trials:
            return None
        trial = self._trials.get(self._key(library))
        if trial is None or (trial.verdict.is_transient and not 0 <= time.time() - trial.at < _RETRY_S):
            return None
        return trial

    def put(self, library: BlasLibrary, trial: Trial) -> None:
        """Record a trial; if it cannot be written, the next process repeats it."""
        self.read()  # includes trials of other processes
        self._trials[self._key(library)] = trial
        self._changed = True
        self.save()

    def save(self) -> None:
        """Write the file if anything has changed."""
        if self.path is None or not self._changed:
            return
        self._changed = False
        newest = sorted(self._trials.items(), key=lambda entry: entry[1].at)[-_MAX_ENTRIES:]
        self._trials = dict(newest)
        self._files = dict(list(self._files.items())[-_MAX_ENTRIES:])
        content = {
            "format": _FORMAT,
            "trials": {key: asdict(value) for key, value in self._trials.items()},
            "files": self._files,
        }
        text = json.dumps(content, indent=1)
        with contextlib.suppress(OSError, ValueError):
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            replace_file(self.path, text.encode("utf-8", "surrogateescape"))

    @contextlib.contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Allow only one process at a time to try libraries; without a usable lock all of them do."""
        from filelock import FileLock, Timeout

        lock = None
        with contextlib.suppress(OSError, Timeout, NotImplementedError):
            if self.path is not None:
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
                lock = FileLock(f"{self.path}.lock", timeout=seconds)
                lock.acquire()
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _key(self, library: BlasLibrary) -> str:
        path = os.path.realpath(library.path)
        try:
            info = os.stat(path)
            # Without the change time, because uv and conda link one file into many environments.
            stamp = f"{info.st_size} {info.st_mtime_ns} {info.st_ino} {info.st_dev}"
            known = self._files.get(path)
            if known is None or known[0] != stamp:
                known = [stamp, _digest(path)]
                self._files[path] = known
                self._changed = True
        except OSError:
            return ""
        words = "\n".join([path, known[1], *self._environment])
        return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()


def _processor_id(cpuinfo: str) -> str:
    """Return a hash that identifies the processor, by its names and features."""
    words = [platform.machine()]
    with contextlib.suppress(OSError), open(cpuinfo, "rb") as stream:
        first = stream.read(_CPUINFO_BYTES).split(b"\n\n", 1)[0]
        lines = [line for line in first.split(b"\n") if not line.startswith(_CHANGING)]
        words += [line.decode(errors="replace") for line in lines]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _parse_trial(value: Any) -> Trial:
    """Parse a recorded trial.

    Raises:
        ValueError, TypeError, KeyError: the value is not a trial.
    """
    numbers = [float(value[name]) for name in ("gain", "speed", "at")]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("not a number")
    return Trial(TrialVerdict(value["verdict"]), str(value["detail"])[:300], *numbers)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
