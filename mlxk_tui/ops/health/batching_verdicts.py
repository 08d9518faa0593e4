"""Whether a model answers several requests together rightly: verdicts of trials, remembered on disk.

A verdict belongs to what shapes a model (config.json without names), the versions of MLX and mlx-lm, and
what chooses the kernels (`Arithmetic`). Each has a file of its own, which is replaced as a whole, so that
processes do not hurt each other. Before a trial begins, a file says that it is under way; it is locked as
long as its process lives. One that nobody holds is a trial that its process did not survive.

The folder is this program's own, and losing it costs one more trial of each model. Where it cannot be
written every load tries anew: a wrong answer is worse than a slow load.
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
"""A folder for the remembered verdicts, or `off`."""
MOST_UNFINISHED = 2
"""Trials that may end with their process before it counts as a crash: one of them may have been killed."""
_FORMAT = 2
"""Raised when the trial asks for more."""
_MAX_BYTES = 10_000
_NAMES = frozenset(
    {
        *("_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "auto_map"),
        *("id2label", "label2id", "license", "use_cache"),
    }
)
"""Keys of config.json that shape nothing."""


def _system() -> str:
    return f"{sys.platform}-{platform.machine()}"


@dataclass(frozen=True)
class Arithmetic:
    """What chooses the kernels that a model is calculated with, beside the model itself.

    From how many rows on quantized weights are expanded is no part of it: that is measured at every load, and
    either way the numbers are float32 ones.
    """

    device: str
    """`gpu` or `cpu`."""
    weights: str = ""
    """How they are held on a CPU, `float32` or `stored`; empty where mlx-lm's own way is kept."""
    blas: str = ""
    """The library that multiplies on a CPU, with its version; empty for MLX's own."""
    system: str = field(default_factory=_system)
    """Operating system and machine."""


@dataclass(frozen=True)
class BatchingVerdict:
    """What a trial found out."""

    together: bool
    """Whether several requests are decoded as one batch; otherwise they take turns."""
    reason: BatchingReason | None = None
    """Why not."""
    difference: float = 0.0
    """The largest difference that was measured, total variation: 0 to 1."""
    unfinished: int = 0
    """Trials that their process did not survive."""

    @property
    def final(self) -> bool:
        """Whether a trial would tell nothing new."""
        return self.reason is not BatchingReason.UNFINISHED

    @property
    def message(self) -> str:
        """What is said of it, one sentence."""
        return _SENTENCES[self.reason]


_SENTENCES: Mapping[BatchingReason | None, str] = {
    None: "Requests are answered together.",
    BatchingReason.DIFFERENT: (
        "Requests take turns: mlx-lm answers differently when this model reads several at once."
    ),
    BatchingReason.FAILED: "Requests take turns: mlx-lm cannot run this model on several at once.",
    BatchingReason.CRASHED: "Requests take turns: mlx-lm crashed when this model read several at once.",
    BatchingReason.UNFINISHED: (
        "Requests take turns until the model is loaded again: the check whether they can be answered "
        "together did not finish."
    ),
    BatchingReason.CACHE: "Requests take turns: mlx-lm cannot batch this model's kind of cache.",
}


class BatchingVerdicts:
    """The remembered verdicts of one folder.

    Args:
        environ: variables that may name the folder; those of this process by default.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        named = env.get(FOLDER_VARIABLE, "")
        default = Path(platformdirs.user_cache_dir("mlxk-tui", appauthor=False)) / "batching"
        self.folder = None if named.lower() == "off" else Path(named).expanduser() if named else default
        """Where they are; None remembers nothing."""

    def get(self, key: str) -> BatchingVerdict | None:
        """Return what is remembered; None where it is nothing, or cannot be read."""
        if self.folder is None:
            return None
        try:
            with (self.folder / f"{key}.json").open("rb") as stream:
                content = json.loads(stream.read(_MAX_BYTES))
            return _verdict_of(content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def touch(self, key: str) -> None:
        """Take note that a verdict was used, for `latest`."""
        if self.folder is not None:
            with contextlib.suppress(OSError):
                os.utime(self.folder / f"{key}.json")

    def latest(self, model: str) -> BatchingVerdict | None:
        """Return the verdict of a model that was used last, however it was calculated; None without one.

        Args:
            model: of `model_key`.
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
        """Remember a verdict and return whether that was possible.

        Args:
            key: the model's, of `batching_key`.
            verdict: what was found out.
            about: more for people who look into the file.
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
        """Write down that a trial is under way; that is on the disk when this returns, where it can be."""
        if self.folder is None:
            return BatchingTrial(None, None)
        name = f"{key}.{os.getpid()}-{secrets.token_hex(4)}"
        temporary = self.folder / f"{name}.tmp"
        descriptor = None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if not _lock(descriptor):
                raise OSError("it cannot be locked")
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

    def take_unfinished(self, key: str) -> int:
        """Return how many trials of a model ended with their process, and forget them."""
        count = 0
        if self.folder is None:
            return count
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.glob(f"{key}.*.trying")):
                count += _is_left_over(path)
        return count


class BatchingTrial:
    """A trial that is under way."""

    def __init__(self, path: Path | None, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def end(self) -> None:
        """Take note that it is over; any thread may say so, more than once."""
        path, self._path = self._path, None
        descriptor, self._descriptor = self._descriptor, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()
        if descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def model_key(config: Mapping[str, Any], mlx: str, mlx_lm: str) -> str:
    """Return what all verdicts of a model have in common.

    Args:
        config: config.json.
        mlx: version of MLX.
        mlx_lm: version of mlx-lm.
    """
    shape = {name: value for name, value in config.items() if name not in _NAMES}
    return _digest([_FORMAT, shape, mlx, mlx_lm])[:40]


def batching_key(model: str, arithmetic: Arithmetic) -> str:
    """Return what a verdict is remembered by.

    Args:
        model: of `model_key`.
        arithmetic: how it is calculated.
    """
    return f"{model}-{_digest(asdict(arithmetic))[:16]}"


def known_batching(config: object, environ: Mapping[str, str] | None = None) -> BatchingVerdict | None:
    """Return what is known of a model here, by its config.json; None before its first load."""
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


def _verdict_of(content: Any) -> BatchingVerdict:
    if content["format"] != _FORMAT or not isinstance(content["together"], bool):
        raise ValueError("another format")
    reason = content["reason"]
    difference = float(content["difference"])
    unfinished = int(content["unfinished"])
    found = None if reason is None else BatchingReason(reason)
    if content["together"] is not (found is None) or not math.isfinite(difference):
        raise ValueError("not a verdict")
    return BatchingVerdict(content["together"], found, difference, unfinished)


def _lock(descriptor: int) -> bool:
    """Lock a file as long as this process lives; return False where another holds it."""
    import fcntl  # not on Windows, where no model runs

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_left_over(path: Path) -> bool:
    """Return whether nobody holds a trial any more, and remove it then."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _lock(descriptor):
            return False
        path.unlink()
        return True
    except OSError:  # it cannot be removed: it would count again and again
        return False
    finally:
        os.close(descriptor)
