"""Caches the reports of a scan, so that the next scan evaluates only changed repos.

Evaluating a snapshot takes some milliseconds (mainly the safetensors headers), while detecting that
nothing changed takes one stat for each blob and folder: measured on 500 repos, a quarter of the time.
A report is used only if every file and folder that the scan read has the same size, inode, modification
and change time. It is stored only if none of them changed within two seconds before the scan began:
changes during the scan could otherwise go undetected (git calls such entries racy). The file belongs to
this program, is never inside the Hugging Face cache, and deleting it costs one slower scan.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Mapping

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import mlxk_tui
from mlxk_tui import __version__
from mlxk_tui.ops.cache.cache import Cache, RepoRef
from mlxk_tui.ops.contract.results import SPEC_VERSION, Finding, Model
from mlxk_tui.ops.core.files import replace_file
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.health.report import ModelFacts, Report

ENVIRONMENT_VARIABLE = "MLXK_VERDICTS"
"""Environment variable: the folder for cached verdicts, or `off`."""
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
    "mlxk_tui.ops.cache.selection",
    "mlxk_tui.ops.health.report",
    "mlxk_tui.ops.health.compatibility",
    "mlxk_tui.ops.health.safetensors",
    "mlxk_tui.ops.contract.terms",
    "mlxk_tui.ops.health.weights",
)
"""Modules that a verdict depends on: this one, those that read and evaluate a repo, and their imports.

A change of one of them discards all cached verdicts. A test compares the list with the imports.
"""
_PACKAGE = os.path.dirname(mlxk_tui.__file__)
RACY_NS = 2_000_000_000
"""Age that a change must have, in nanoseconds, to be certain that a scan has seen it."""
_MAX_BYTES = 64_000_000


class _Entry(BaseModel):
    """The cached report of one repo."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    fingerprint_paths: tuple[str, ...] = Field(alias="witnesses")
    """Everything that the scan read, relative to the repo."""
    stamp: int
    """Hash of the stats of `fingerprint_paths`."""
    model: Model
    findings: tuple[Finding, ...]
    facts: ModelFacts


class _File(BaseModel):
    """The whole cache file, parsed and validated in one step."""

    model_config = ConfigDict(defer_build=True)

    header: tuple[str, ...]
    repos: dict[str, _Entry]


class VerdictCache:
    """Cached reports of one Hugging Face cache."""

    def __init__(self, path: str | None, cache: Cache, runtime: Runtime, *, package: str = _PACKAGE) -> None:
        """Load the reports that were stored under the same version, rules, mlx-lm and memory.

        Args:
            path: the file; None stores nothing.
            cache: the Hugging Face cache of the reports.
            runtime: the runtime that the reports are evaluated against.
            package: folder of the package `mlxk_tui` with the modules of RULES.
        """
        self._path = path
        # Hashes of numbers are equal in all processes of one Python version, which sys.version identifies.
        self._header = (
            __version__,
            SPEC_VERSION,
            sys.version,
            os.fspath(cache.root),
            *_conditions(runtime, package),
        )
        self._entries: dict[str, _Entry] = _load(path, self._header) if path else {}
        self._used: dict[str, _Entry] = {}
        self._changed = False

    @classmethod
    def for_cache(
        cls, cache: Cache, runtime: Runtime, environ: Mapping[str, str] | None = None
    ) -> VerdictCache:
        """Return the cached reports of a cache, stored in the user's cache folder."""
        env = os.environ if environ is None else environ
        folder = env.get(ENVIRONMENT_VARIABLE) or platformdirs.user_cache_dir("mlxk-tui", appauthor=False)
        if folder.lower() == "off":
            return cls(None, cache, runtime)
        folder = os.path.abspath(os.path.expanduser(folder))
        key = hashlib.sha256(os.fsencode(cache.root)).hexdigest()[:16]
        return cls(os.path.join(folder, f"verdicts-{key}.json"), cache, runtime)

    def get(self, ref: RepoRef) -> Report | None:
        """Return the cached report of an unchanged repo, else None."""
        entry = self._entries.get(ref.folder_name)
        try:
            if entry is None or entry.stamp != stamp_paths(ref.folder, entry.fingerprint_paths)[0]:
                return None
        except (OSError, ValueError):  # removed meanwhile
            return None
        self._used[ref.folder_name] = entry
        return Report(ref, entry.model, entry.findings, entry.facts)

    def retain(self, ref: RepoRef) -> None:
        """Retain the cached report of a repo that this scan skips."""
        if ref.folder_name in self._entries:
            self._used[ref.folder_name] = self._entries[ref.folder_name]

    def put(self, report: Report, fingerprint_paths: tuple[str, ...], began_ns: int) -> None:
        """Store a report, unless its repo changed just before it was read.

        Args:
            report: the report.
            fingerprint_paths: paths of everything that the scan read.
            began_ns: start of the scan, in nanoseconds since the epoch.
        """
        if self._path is None:
            return
        root = report.ref.folder
        relative = tuple(os.path.relpath(path, root) for path in fingerprint_paths)
        try:
            "".join((report.ref.folder_name, *relative)).encode()
            stamp, newest = stamp_paths(root, relative)
        except (OSError, UnicodeEncodeError):  # removed meanwhile, or a name that JSON cannot represent
            return
        if newest <= began_ns - RACY_NS:
            self._changed = True
            self._used[report.ref.folder_name] = _Entry.model_construct(
                fingerprint_paths=relative,
                stamp=stamp,
                model=report.model,
                findings=report.findings,
                facts=report.facts,
            )

    def save(self) -> None:
        """Write the reports that were used or stored since loading; a failure costs only time."""
        if self._path is None or not (self._changed or self._used.keys() != self._entries.keys()):
            return
        with contextlib.suppress(OSError, ValueError):
            content = _File.model_construct(header=self._header, repos=self._used).model_dump_json(
                by_alias=True
            )
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            replace_file(self._path, content, durable=False)


def _conditions(runtime: Runtime, package: str) -> tuple[str, ...]:
    """Return what a verdict depends on besides the repo: mlx-lm, the memory and the rules."""
    known = " ".join((*sorted(runtime.architectures), *map(str, sorted(runtime.remapping.items()))))
    digest = hashlib.sha256(known.encode("utf-8", "replace")).hexdigest()
    return str(runtime.mlx_lm), digest, str(runtime.memory_bytes), _rules_fingerprint(package)


def _rules_fingerprint(package: str) -> str:
    """Return a hash of the modules in RULES, which can change without a new version in a checkout.

    It is computed from the stats of the sources, so that nothing is imported for it. The change time is
    included because installers may give files of two builds the same modification time.
    """
    parts: list[str] = []
    for module in RULES:
        try:
            info = os.stat(os.path.join(package, *module.split(".")[1:]) + ".py")
        except OSError:  # installed without sources: the version must suffice
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


def stamp_paths(root: str, fingerprint_paths: tuple[str, ...]) -> tuple[int, int]:
    """Return a hash of the stats of the paths, and the newest change time among them in nanoseconds.

    Raises:
        OSError: one of the paths no longer exists.
    """
    prefix = root + os.sep
    stats = [os.lstat(prefix + path) for path in fingerprint_paths]
    changed = [info.st_ctime_ns for info in stats]
    facts = [part for info in stats for part in (info.st_mtime_ns, info.st_size, info.st_ino)]
    return hash((*changed, *facts)), max(changed, default=0)
