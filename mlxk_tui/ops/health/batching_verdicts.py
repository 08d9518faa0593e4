"""Stores on disk whether a model's requests can be decoded as one batch.

The key of a verdict is the model's architecture (config.json without names), the versions of MLX and
mlx-lm, and whatever selects the compute kernels (`Arithmetic`). Each verdict has a file of its own, which
is replaced atomically, so that processes do not interfere. A running trial is marked by a file that its
process keeps locked; an unlocked one belongs to a trial that did not survive.

The folder belongs to this program, and deleting it costs one more trial of each model. If it is not
writable, every load repeats the trial: a slow load is better than a wrong answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import platformdirs

from mlxk_tui.ops.contract.terms import BatchingReason
from mlxk_tui.ops.core.files import replace_file, sync_folder

FOLDER_VARIABLE = "MLXK_BATCHING"
"""Environment variable: the folder for verdicts, or `off`."""
MAX_UNFINISHED = 2
"""Aborted trials that are tolerated before they count as a crash; one may have been killed."""
_FORMAT = 2
"""Incremented when the trial becomes stricter."""
_MAX_BYTES = 10_000
_IGNORED_KEYS = frozenset(
    {
        *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "auto_map"),
        *("id2label", "label2id", "license", "use_cache"),
    }
)
"""Keys of config.json that do not affect the computation."""


def _system() -> str:
    return f"{sys.platform}-{platform.machine()}"


@dataclass(frozen=True)
class Arithmetic:
    """Everything besides the model that selects the compute kernels.

    The number of rows from which quantized weights are expanded is not included: it is measured at every
    load, and the results are float32 values either way.
    """

    device: str
    """`gpu` or `cpu`."""
    weights: str = ""
    """Weights on a CPU: `float32` or `stored`; empty for mlx-lm's default."""
    blas: str = ""
    """The BLAS library on a CPU, with its version; empty for MLX's own."""
    system: str = field(default_factory=_system)
    """Operating system and processor architecture."""


@dataclass(frozen=True)
class BatchingVerdict:
    """Whether a model's requests can be decoded as one batch, by a trial."""

    together: bool
    """Whether requests are decoded as one batch; otherwise they take turns."""
    reason: BatchingReason | None = None
    """Why requests take turns; None if they do not."""
    difference: float = 0.0
    """Largest measured difference, as total variation: 0 to 1."""
    unfinished: int = 0
    """Number of trials that did not survive."""

    @property
    def final(self) -> bool:
        """Whether the verdict stands without another trial."""
        return self.reason is not BatchingReason.UNFINISHED

    @property
    def message(self) -> str:
        """The verdict as one sentence for people."""
        return _SENTENCES[self.reason]


_SENTENCES: Mapping[BatchingReason | None, str] = {
    None: "Requests are processed together.",
    BatchingReason.DIFFERENT: (
        "Requests take turns: mlx-lm gives different answers when this model processes several at once."
    ),
    BatchingReason.FAILED: "Requests take turns: mlx-lm cannot process several for this model at once.",
    BatchingReason.CRASHED: "Requests take turns: mlx-lm crashed when this model processed several at once.",
    BatchingReason.UNFINISHED: (
        "Requests take turns until the model is loaded again: the check whether they can be processed "
        "together did not finish."
    ),
    BatchingReason.CACHE: "Requests take turns: mlx-lm cannot batch this model's kind of cache.",
}


class BatchingVerdicts:
    """The verdicts stored in one folder.

    Args:
        environ: variables that may name the folder; by default those of this process.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        folder_setting = env.get(FOLDER_VARIABLE, "")
        default = Path(platformdirs.user_cache_dir("mlxk-tui", appauthor=False)) / "batching"
        self.folder = (
            None
            if folder_setting.lower() == "off"
            else Path(folder_setting).expanduser()
            if folder_setting
            else default
        )
        """The folder; None stores nothing."""

    def get(self, key: str) -> BatchingVerdict | None:
        """Return a stored verdict; None if there is none or it is unreadable."""
        if self.folder is None:
            return None
        try:
            with (self.folder / f"{key}.json").open("rb") as stream:
                content = json.loads(stream.read(_MAX_BYTES))
            return _parse_verdict(content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def touch(self, key: str) -> None:
        """Record that a verdict was used, for `latest`."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.utime(self.folder / f"{key}.json")

    def latest(self, model: str) -> BatchingVerdict | None:
        """Return a model's most recently used verdict, for any arithmetic; None if there is none.

        Args:
            model: a key from `model_key`.
        """
        if self.folder is None:
            return None
        dated: list[tuple[float, str]] = []
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"{model}-*.json"):
                with contextlib.suppress(OSError):
                    dated.append((path.stat().st_mtime, path.stem))
        return next((found for _, key in sorted(dated, reverse=True) if (found := self.get(key))), None)

    def put(self, key: str, verdict: BatchingVerdict, about: Mapping[str, str] | None = None) -> bool:
        """Store a verdict; return whether that succeeded.

        Args:
            key: a key from `batching_key`.
            verdict: the verdict.
            about: details for people who read the file.
        """
        if self.folder is None:
            return False
        content = {"format": _FORMAT, **asdict(verdict), "about": dict(about or {})}
        content["reason"] = verdict.reason.value if verdict.reason is not None else None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self.folder / f"{key}.json", json.dumps(content, indent=1))
        except OSError:
            return False
        return True

    def begin(self, key: str) -> BatchingTrial:
        """Mark a trial as running; the mark is on disk when this returns, if the folder is writable."""
        if self.folder is None:
            return BatchingTrial(None, None)
        name = f"{key}.{os.getpid()}-{secrets.token_hex(4)}"
        temporary = self.folder / f"{name}.tmp"
        descriptor = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if not _lock(descriptor):
                raise OSError("the file cannot be locked")
            os.fsync(descriptor)
            path = temporary.with_suffix(".trying")
            temporary.rename(path)  # locked before it can be seen
            sync_folder(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if descriptor is not None:
                os.close(descriptor)
            return BatchingTrial(None, None)
        return BatchingTrial(path, descriptor)

    def pop_unfinished(self, key: str) -> int:
        """Return the number of trials of a model that did not survive, and delete their marks."""
        count = 0
        if self.folder is None:
            return count
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.glob(f"{key}.*.trying")):
                count += _remove_if_abandoned(path)
        return count


class BatchingTrial:
    """The mark of a running trial, held by a file lock."""

    def __init__(self, path: Path | None, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def end(self) -> None:
        """Mark the trial as finished; thread-safe, and may be called repeatedly."""
        path, self._path = self._path, None
        descriptor, self._descriptor = self._descriptor, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def model_key(config: Mapping[str, Any], mlx: str, mlx_lm: str) -> str:
    """Return the common prefix of the keys of a model's verdicts.

    Args:
        config: the content of config.json.
        mlx: the version of MLX.
        mlx_lm: the version of mlx-lm.
    """
    shape = {name: value for name, value in config.items() if name not in _IGNORED_KEYS}
    return _digest([_FORMAT, shape, mlx, mlx_lm])[:40]


def batching_key(model: str, arithmetic: Arithmetic) -> str:
    """Return the key of a verdict.

    Args:
        model: a key from `model_key`.
        arithmetic: how the model is computed.
    """
    return f"{model}-{_digest(asdict(arithmetic))[:16]}"


def find_batching_verdict(config: object, environ: Mapping[str, str] | None = None) -> BatchingVerdict | None:
    """Return the verdict on a model on this machine, by its config.json; None before its first load."""
    if not isinstance(config, Mapping):
        return None
    try:
        versions = version("mlx"), version("mlx-lm")
    except PackageNotFoundError:
        return None
    return BatchingVerdicts(environ).latest(model_key(config, *versions))


def _digest(content: object) -> str:
    words = json.dumps(content, sort_keys=True)
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()


def _parse_verdict(content: Any) -> BatchingVerdict:
    if content["format"] != _FORMAT or not isinstance(content["together"], bool):
        raise ValueError("unsupported format")
    reason = content["reason"]
    difference = float(content["difference"])
    unfinished = int(content["unfinished"])
    found = None if reason is None else BatchingReason(reason)
    if content["together"] is not (found is None) or not math.isfinite(difference):
        raise ValueError("not a verdict")
    return BatchingVerdict(content["together"], found, difference, unfinished)


def _lock(descriptor: int) -> bool:
    """Lock a file for the lifetime of this process; return False if another process holds it."""
    import fcntl  # not available on Windows, where no model runs

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_abandoned(path: Path) -> bool:
    """Delete the mark of a trial that no process holds; return whether it was one."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _lock(descriptor):
            return False
        path.unlink()
        return True
    except OSError:  # if it cannot be deleted, it would be counted repeatedly
        return False
    finally:
        os.close(descriptor)
