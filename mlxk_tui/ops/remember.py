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
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import platformdirs
from pydantic import ValidationError

from mlxk_tui import __version__
from mlxk_tui.ops.cache import Cache, RepoRef
from mlxk_tui.ops.contract import SPEC_VERSION, Finding, Model
from mlxk_tui.ops.detect import Facts
from mlxk_tui.ops.report import Report
from mlxk_tui.ops.runtime import Runtime

ENVIRONMENT_VARIABLE = "MLXK_VERDICTS"
"""A folder for the remembered verdicts, or `off`."""
_RACY_NS = 2_000_000_000
_MAX_BYTES = 64_000_000


class Verdicts:
    """Remembered reports of one cache."""

    def __init__(self, path: str | None, cache: Cache, runtime: Runtime) -> None:
        """Load what was remembered under the same version, mlx-lm and memory.

        Args:
            path: the file; None remembers nothing.
            cache: the cache that the reports are of.
            runtime: what they were judged against.
        """
        self._path = path
        self._header = [__version__, SPEC_VERSION, os.fspath(cache.root), repr(_facts_of(runtime))]
        self._entries: dict[str, Any] = _load(path, self._header) if path else {}
        self._kept: dict[str, Any] = {}
        self._changed = False

    @classmethod
    def of(cls, cache: Cache, runtime: Runtime, environ: Mapping[str, str] | None = None) -> Verdicts:
        """Return the verdicts remembered for a cache in the user's cache folder."""
        env = os.environ if environ is None else environ
        folder = env.get(ENVIRONMENT_VARIABLE) or platformdirs.user_cache_dir("mlxk-tui", appauthor=False)
        if folder.lower() == "off":
            return cls(None, cache, runtime)
        key = hashlib.sha256(os.fsencode(cache.root)).hexdigest()[:16]
        return cls(os.path.join(folder, f"verdicts-{key}.json"), cache, runtime)

    def get(self, ref: RepoRef) -> Report | None:
        """Return the remembered report of a repo in which nothing has changed, else None."""
        entry = self._entries.get(ref.path.name)
        try:
            if entry is None or entry["stamp"] != _stamp(os.fspath(ref.path), entry["witnesses"])[0]:
                return None
            report = Report(
                ref,
                Model.model_validate(entry["model"]),
                tuple(Finding.model_validate(finding) for finding in entry["findings"]),
                Facts(**{**entry["facts"], "tags": tuple(entry["facts"]["tags"])}),
            )
        except (OSError, KeyError, TypeError, ValidationError):  # vanished, or not written by us
            return None
        self._kept[ref.path.name] = entry
        return report

    def keep(self, ref: RepoRef) -> None:
        """Keep what is remembered of a repo that was not looked at."""
        if ref.path.name in self._entries:
            self._kept[ref.path.name] = self._entries[ref.path.name]

    def put(self, report: Report, witnesses: tuple[str, ...], began_ns: int) -> None:
        """Remember a report, unless what it is about changed just before it was read.

        Args:
            report: the verdict.
            witnesses: paths of everything that the reading looked at.
            began_ns: when the reading began, in nanoseconds since the epoch.
        """
        if self._path is None:
            return
        root = os.fspath(report.ref.path)
        relative = [os.path.relpath(path, root) for path in witnesses]
        try:
            stamp, newest = _stamp(root, relative)
        except OSError:
            return
        self._changed = True
        if newest > began_ns - _RACY_NS:
            return
        self._kept[report.ref.path.name] = {
            "witnesses": relative,
            "stamp": stamp,
            "model": report.model.model_dump(mode="json"),
            "findings": [finding.model_dump(mode="json") for finding in report.findings],
            "facts": asdict(report.facts),
        }

    def save(self) -> None:
        """Write what was used or stored since loading; a failure costs only the next scan's time."""
        if self._path is None or not (self._changed or self._kept.keys() != self._entries.keys()):
            return
        temporary = f"{self._path}.{secrets.token_hex(4)}.tmp"
        try:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                json.dump({"header": self._header, "repos": self._kept}, stream, separators=(",", ":"))
            os.replace(temporary, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _facts_of(runtime: Runtime) -> tuple[object, ...]:
    return runtime.mlx_lm, len(runtime.architectures), len(runtime.remapping), runtime.memory_bytes


def _load(path: str, header: list[str]) -> dict[str, Any]:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            return {}
        with open(path, encoding="ascii") as stream:
            content = json.load(stream)
        if (
            isinstance(content, dict)
            and content.get("header") == header
            and isinstance(content["repos"], dict)
        ):
            return content["repos"]
    except (OSError, ValueError, KeyError, RecursionError):
        pass
    return {}


def _stamp(root: str, witnesses: list[str]) -> tuple[str, int]:
    """Return a digest of the witnesses' stats and the newest change time among them, in ns.

    Raises:
        OSError: one of them vanished.
    """
    newest = 0
    parts: list[int] = []
    prefix = root + os.sep
    for path in witnesses:
        info = os.lstat(prefix + path)
        newest = max(newest, info.st_ctime_ns, info.st_mtime_ns)
        parts += (info.st_size, info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest(), newest
