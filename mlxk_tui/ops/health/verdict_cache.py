"""Verdicts remembered from one scan to the next, so that only what changed is judged again.

A snapshot is immutable and its verdict costs some milliseconds (the safetensors headers above
all), while noticing that nothing changed costs a stat for each blob and folder: measured on 500
repos, a quarter of the time. A verdict is used only if every file and folder that the reading
looked at has the same size, inode, modification and change time, and it is stored only if none of
them changed within the last two seconds before the reading: what changes while it is read would
otherwise go unnoticed (git calls such entries racy). The file is this program's own, never inside
the Hugging Face cache, and losing it costs one slower scan.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Mapping

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

import mlxk_tui
from mlxk_tui import __version__
from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.contract.results import SPEC_VERSION, Finding, Model
from mlxk_tui.ops.core.files import replace_file
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import ModelFacts, Report

ENVIRONMENT_VARIABLE = "MLXK_VERDICTS"
"""A folder for the remembered verdicts, or `off`."""
RULES = (
    "mlxk_tui.ops.contract.matrices",
    "mlxk_tui.ops.cache.cache",
    "mlxk_tui.ops.contract.results",
    "mlxk_tui.ops.health.detect",
    "mlxk_tui.ops.cache.documents",
    "mlxk_tui.ops.core.errors",
    "mlxk_tui.ops.core.remedies",
    "mlxk_tui.ops.core.files",
    "mlxk_tui.ops.core.text",
    "mlxk_tui.ops.health.integrity",
    "mlxk_tui.ops.health.verdict",
    "mlxk_tui.ops.health.machine",
    "mlxk_tui.ops.cache.names",
    "mlxk_tui.ops.core.os_errors",
    "mlxk_tui.ops.cache.repo_scanner",
    "mlxk_tui.ops.health.verdict_cache",
    "mlxk_tui.ops.cache.repo",
    "mlxk_tui.ops.health.report",
    "mlxk_tui.ops.health.compatibility",
    "mlxk_tui.ops.health.safetensors",
    "mlxk_tui.ops.contract.terms",
    "mlxk_tui.ops.health.weights",
)
"""What a verdict depends on: this module, those that read and judge a repo, and all that they import.

A change in one of them discards every remembered verdict. A test compares the list with the imports.
"""
_PACKAGE = os.path.dirname(mlxk_tui.__file__)
_RACY_NS = 2_000_000_000
_MAX_BYTES = 64_000_000


class _Entry(BaseModel):
    """What is remembered of one repo."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    fingerprint_paths: tuple[str, ...]
    """Everything that the reading looked at, relative to the repo."""
    stamp: int
    """Hash of the witnesses' stats."""
    model: Model
    findings: tuple[Finding, ...]
    facts: ModelFacts


class _File(BaseModel):
    """The file, as it is parsed and validated in one go."""

    model_config = ConfigDict(defer_build=True)

    header: tuple[str, ...]
    repos: dict[str, _Entry]


class VerdictCache:
    """Remembered reports of one cache."""

    def __init__(self, path: str | None, cache: Cache, runtime: Runtime, *, package: str = _PACKAGE) -> None:
        """Load what was remembered under the same version, rules, mlx-lm and memory.

        Args:
            path: the file; None remembers nothing.
            cache: the cache that the reports are of.
            runtime: what they were judged against.
            package: the folder of the package `mlxk_tui` whose rules apply.
        """
        self._path = path
        # The hash of numbers is the same in every process of one Python, and is not promised beyond.
        self._header = (
            __version__,
            SPEC_VERSION,
            sys.version,
            os.fspath(cache.root),
            *_basis(runtime, package),
        )
        self._entries: dict[str, _Entry] = _load(path, self._header) if path else {}
        self._kept: dict[str, _Entry] = {}
        self._changed = False

    @classmethod
    def of(cls, cache: Cache, runtime: Runtime, environ: Mapping[str, str] | None = None) -> VerdictCache:
        """Return the verdicts remembered for a cache in the user's cache folder."""
        env = os.environ if environ is None else environ
        folder = env.get(ENVIRONMENT_VARIABLE) or platformdirs.user_cache_dir("mlxk-tui", appauthor=False)
        if folder.lower() == "off":
            return cls(None, cache, runtime)
        folder = os.path.abspath(os.path.expanduser(folder))
        key = hashlib.sha256(os.fsencode(cache.root)).hexdigest()[:16]
        return cls(os.path.join(folder, f"verdicts-{key}.json"), cache, runtime)

    def get(self, ref: RepoRef) -> Report | None:
        """Return the remembered report of a repo in which nothing has changed, else None."""
        entry = self._entries.get(ref.folder_name)
        try:
            if entry is None or entry.stamp != _stamp(ref.folder, entry.fingerprint_paths)[0]:
                return None
        except (OSError, ValueError):  # vanished
            return None
        self._kept[ref.folder_name] = entry
        return Report(ref, entry.model, entry.findings, entry.facts)

    def keep(self, ref: RepoRef) -> None:
        """Keep what is remembered of a repo that was not looked at."""
        if ref.folder_name in self._entries:
            self._kept[ref.folder_name] = self._entries[ref.folder_name]

    def put(self, report: Report, fingerprint_paths: tuple[str, ...], began_ns: int) -> None:
        """Remember a report, unless what it is about changed just before it was read.

        Args:
            report: the verdict.
            witnesses: paths of everything that the reading looked at.
            began_ns: when the reading began, in nanoseconds since the epoch.
        """
        if self._path is None:
            return
        root = report.ref.folder
        relative = tuple(os.path.relpath(path, root) for path in fingerprint_paths)
        try:
            "".join((report.ref.folder_name, *relative)).encode()
            stamp, newest = _stamp(root, relative)
        except (OSError, UnicodeEncodeError):  # vanished, or a name that JSON cannot hold
            return
        if newest <= began_ns - _RACY_NS:
            self._changed = True
            self._kept[report.ref.folder_name] = _Entry.model_construct(
                fingerprint_paths=relative,
                stamp=stamp,
                model=report.model,
                findings=report.findings,
                facts=report.facts,
            )

    def save(self) -> None:
        """Write what was used or stored since loading; a failure costs only the next scan's time."""
        if self._path is None or not (self._changed or self._kept.keys() != self._entries.keys()):
            return
        with contextlib.suppress(OSError, ValueError):
            content = _File.model_construct(header=self._header, repos=self._kept).model_dump_json()
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            replace_file(self._path, content, durable=False)


def _basis(runtime: Runtime, package: str) -> tuple[str, ...]:
    """Return what a verdict is based on beside the repo: mlx-lm, the memory and the rules."""
    known = " ".join((*sorted(runtime.architectures), *map(str, sorted(runtime.remapping.items()))))
    digest = hashlib.sha256(known.encode("utf-8", "replace")).hexdigest()
    return str(runtime.mlx_lm), digest, str(runtime.memory_bytes), _fingerprint(package)


def _fingerprint(package: str) -> str:
    """Return a hash that changes with the rules: in a checkout they change without a new version.

    It is made of the stats of the sources, so that nothing is imported for it. The change time is
    among them because installers may give files of two builds the same modification time.
    """
    parts: list[str] = []
    for module in RULES:
        try:
            info = os.stat(os.path.join(package, *module.split(".")[1:]) + ".py")
        except OSError:  # installed without sources: the version has to do
            continue
        parts.append(f"{info.st_mtime_ns} {info.st_ctime_ns} {info.st_size}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _load(path: str, header: tuple[str, ...]) -> dict[str, _Entry]:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            return {}
        with open(path, "rb") as stream:
            content = _File.model_validate_json(stream.read())
    except (OSError, ValidationError):
        return {}
    return content.repos if content.header == header else {}


def _stamp(root: str, fingerprint_paths: tuple[str, ...]) -> tuple[int, int]:
    """Return a hash of the witnesses' stats and the newest change time among them, in ns.

    Raises:
        OSError: one of them vanished.
    """
    prefix = root + os.sep
    stats = [os.lstat(prefix + path) for path in fingerprint_paths]
    changed = [info.st_ctime_ns for info in stats]
    facts = [part for info in stats for part in (info.st_mtime_ns, info.st_size, info.st_ino)]
    return hash((*changed, *facts)), max(changed, default=0)
