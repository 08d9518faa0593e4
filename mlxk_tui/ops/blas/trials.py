"""What trials found out about libraries, remembered by file, processor, environment and version of MLX.

The file is this program's own; losing it costs one more trial. It never says what is loaded: that is
looked for anew each time, and only what is found is looked up here.
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
"""A folder for the remembered trials, or `off`."""
_FORMAT = 2
"""Raised when the trial asks for more."""
_MAX_BYTES = 1_000_000
_MAX_ENTRIES = 64
_RETRY_S = 3600.0
"""After how long a trial that may have failed by a busy machine is repeated, in seconds."""
_ENVIRONMENT = ("OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "OMP_", "KMP_", "GOMP_")
"""Beginnings of variables that change what a library does."""
_CPUINFO_BYTES = 16_384
_CHANGING = (b"processor", b"cpu MHz", b"bogomips", b"BogoMIPS", b"apicid", b"initial apicid", b"core id")
"""What /proc/cpuinfo says that differs from one core or moment to the next."""


class Verdict(str, Enum):
    """What came of a trial."""

    GOOD = "good"
    UNUSABLE = "unusable"
    """It cannot be loaded, or has not the functions."""
    DIED = "died"
    WRONG = "wrong"
    """It multiplies wrongly."""
    SLOW = "slow"
    """Nothing is gained."""
    HUNG = "hung"

    @property
    def passing(self) -> bool:
        """Whether a busy machine may be the cause."""
        return self in (Verdict.SLOW, Verdict.HUNG)


@dataclass(frozen=True)
class Trial:
    """One library's trial."""

    verdict: Verdict
    detail: str = ""
    """The library's name and version where it is good, else what happened, without a full stop."""
    gain: float = 0.0
    """How many times faster than MLX's own a prompt's product is."""
    speed: float = 0.0
    """Of products with one, eight and 256 rows, the geometric mean, in billions of operations a second."""
    at: float = 0.0
    """When, in seconds since the epoch."""


class Trials:
    """The remembered trials.

    Args:
        mlx: version of MLX.
        environ: variables that name the folder and change the libraries; those of this process by default.
        cpuinfo: what the kernel says of the processor.
    """

    def __init__(
        self, mlx: str, environ: Mapping[str, str] | None = None, cpuinfo: str = "/proc/cpuinfo"
    ) -> None:
        env = os.environ if environ is None else environ
        folder = env.get(FOLDER_VARIABLE) or platformdirs.user_cache_dir("mlxk-tui", appauthor=False)
        self.path = None if folder.lower() == "off" else os.path.join(os.path.expanduser(folder), "blas.json")
        """The file; None remembers nothing."""
        variables = sorted(f"{name}={env[name]}" for name in env if name.startswith(_ENVIRONMENT))
        self._surroundings = [str(_FORMAT), mlx, _processor(cpuinfo), *variables]
        self._trials: dict[str, Trial] = {}
        self._files: dict[str, list[str]] = {}
        """Size, times and number of each file with the hash of its content: 25 MB are not read every time."""
        self._changed = False
        self.read()

    def read(self) -> None:
        """Take in what is remembered by now; a file that cannot be used counts as empty."""
        try:
            if self.path is None or os.path.getsize(self.path) > _MAX_BYTES:
                return
            with open(self.path, encoding="utf-8") as stream:
                content = json.load(stream)
            if not isinstance(content, dict) or content.get("format") != _FORMAT:
                return
            for key, value in content["trials"].items():
                self._trials[key] = _trial_of(value)
            for path, (stamp, digest) in content["files"].items():
                self._files[path] = [str(stamp), str(digest)]
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return

    def get(self, library: BlasLibrary) -> Trial | None:
        """Return what is known of a library as it lies there now, None when it has to be tried."""
        if not self._trials:
            return None
        trial = self._trials.get(self._key(library))
        if trial is None or (trial.verdict.passing and not 0 <= time.time() - trial.at < _RETRY_S):
            return None
        return trial

    def put(self, library: BlasLibrary, trial: Trial) -> None:
        """Remember a trial; one that cannot be written is made again by the next process."""
        self.read()  # what another process has found out meanwhile
        self._trials[self._key(library)] = trial
        self._changed = True
        self.save()

    def save(self) -> None:
        """Write what has changed."""
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
        """Let one process at a time try libraries; where no lock can be had they all do."""
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
            # Not the change time: uv and conda link one file into many environments.
            stamp = f"{info.st_size} {info.st_mtime_ns} {info.st_ino} {info.st_dev}"
            known = self._files.get(path)
            if known is None or known[0] != stamp:
                known = [stamp, _digest(path)]
                self._files[path] = known
                self._changed = True
        except OSError:
            return ""
        words = "\n".join([path, known[1], *self._surroundings])
        return hashlib.sha256(words.encode("utf-8", "surrogateescape")).hexdigest()


def _processor(cpuinfo: str) -> str:
    """Return what tells this processor from others: its names and what it can do, as a hash."""
    words = [platform.machine()]
    with contextlib.suppress(OSError), open(cpuinfo, "rb") as stream:
        first = stream.read(_CPUINFO_BYTES).split(b"\n\n", 1)[0]
        lines = [line for line in first.split(b"\n") if not line.startswith(_CHANGING)]
        words += [line.decode(errors="replace") for line in lines]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _trial_of(value: Any) -> Trial:
    """Return a remembered trial.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    numbers = [float(value[name]) for name in ("gain", "speed", "at")]
    if not all(map(math.isfinite, numbers)):
        raise ValueError("not a number")
    return Trial(Verdict(value["verdict"]), str(value["detail"])[:300], *numbers)


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
