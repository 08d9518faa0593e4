"""The file of the queue: atomic JSON writes, and a lock for the process that runs the queue."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.files import remove_unfinished, replace_file
from mlxk_tui.ops.core.os_errors import error_reason
from mlxk_tui.ops.core.text import printable
from mlxk_tui.transfers.jobs import Failure, Job, Pull, Push, Transfer, TransferState

if TYPE_CHECKING:
    from filelock import BaseFileLock

VERSION = 1
"""Version of the file format."""
_MAX_BYTES = 20_000_000
_MAX_TRANSFERS = 10_000
_NUMBERS = ("attempts", "bytes_done", "bytes_total", "files_done", "files_total", "furthest")


def state_file(folder: Path, cache_root: Path, kind: str = "transfers") -> Path:
    """Return the path of a cache's queue file; each cache has its own queue.

    Args:
        folder: the program's state folder.
        cache_root: the cache folder, which contains `models--*`.
        kind: what the file contains, for other state of a cache.
    """
    name = os.path.realpath(cache_root).encode("utf-8", "surrogateescape")
    return folder / f"{kind}-{hashlib.sha256(name).hexdigest()[:12]}.json"


@dataclass(frozen=True)
class StoredQueue:
    """The content of a queue file."""

    transfers: tuple[Transfer, ...] = ()
    problem: str | None = None
    """An error message about the file, with the path to which it was renamed."""


class QueueFile:
    """Reads, writes and locks a queue file. All methods block; only the lock stays open.

    Args:
        path: the JSON file; its folder is created on demand.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BaseFileLock | None = None

    def claim(self) -> bool:
        """Acquire the lock of the file; return False if another process holds it.

        Raises:
            OSError: the folder can't be written to.
        """
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # It is acquired in one thread and released in another.
        lock = self._lock or FileLock(self.path.with_suffix(".lock"), thread_local=False, mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._lock = lock
        remove_unfinished(self.path)
        return True

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def read(self, *, repair: bool) -> StoredQueue:
        """Return the stored transfers.

        Args:
            repair: whether to rename an invalid file; the process must hold the lock.
        """
        try:
            if os.path.getsize(self.path) > _MAX_BYTES:
                return self._set_aside((), "is too large", repair)
            document = json.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return StoredQueue()
        except OSError as error:
            cause = error_reason(error)
            return StoredQueue((), f"The transfer queue can't be read: {self._printable_path}: {cause}.")
        except (ValueError, RecursionError):
            return self._set_aside((), "is damaged", repair)
        if not isinstance(document, dict) or not isinstance(document.get("transfers"), list):
            return self._set_aside((), "is damaged", repair)
        version = document.get("version")
        if version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            return self._set_aside((), "has a newer version" if newer else "is damaged", repair)
        found, invalid, seen = [], 0, set()
        for value in document["transfers"][:_MAX_TRANSFERS]:
            transfer = _decode(value)
            if transfer is None or transfer.id in seen:
                invalid += 1
            else:
                seen.add(transfer.id)
                found.append(transfer)
        if invalid:
            return self._set_aside(tuple(found), f"has {invalid:,} invalid entries", repair)
        return StoredQueue(tuple(found))

    def _set_aside(self, found: tuple[Transfer, ...], fault: str, repair: bool) -> StoredQueue:
        if not repair:
            return StoredQueue(found)
        target = self.path.with_suffix(".bad.json")
        try:
            os.replace(self.path, target)
        except OSError as error:
            path, cause = self._printable_path, error.strerror
            return StoredQueue(found, f"The transfer queue {path} {fault} and can't be renamed: {cause}.")
        name = printable(str(target))
        return StoredQueue(found, f"The transfer queue {fault}. The file was renamed to {name}.")

    def write(self, document: dict[str, Any]) -> None:
        """Write the file atomically, readable for its owner only.

        Raises:
            OSError: it can't be written; the old file is unchanged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self.path, json.dumps(document, separators=(",", ":")), mode=0o600)

    @property
    def _printable_path(self) -> str:
        return printable(str(self.path))


def to_document(transfers: Iterable[Transfer]) -> dict[str, Any]:
    """Return the JSON document to store these transfers."""
    return {"version": VERSION, "transfers": [_encode(transfer) for transfer in transfers]}


def _encode(transfer: Transfer) -> dict[str, Any]:
    failure = transfer.failure
    return {
        "id": transfer.id,
        "kind": "push" if transfer.is_push else "pull",
        "job": asdict(transfer.job),
        "state": transfer.state.value,
        "added": transfer.added,
        "ended": transfer.ended,
        "failure": failure.error.to_dict() if failure else None,
        "result": transfer.result,
        **{name: getattr(transfer, name) for name in _NUMBERS},
    }


def _decode(value: object) -> Transfer | None:
    """Convert a stored transfer; None if it is invalid."""
    try:
        if not isinstance(value, dict):
            return None
        job = _decode_job(value["kind"], value["job"])
        identity, state = value["id"], TransferState(value["state"])
        added, ended, result = value["added"], value["ended"], value["result"]
        failed = value["failure"]
        failure = Failure.from_error(OpError.from_dict(failed)) if failed else None
        numbers = {name: value[name] for name in _NUMBERS}
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(identity, str) or not isinstance(result, str):
        return None
    if not all(isinstance(number, int) and 0 <= number < 2**63 for number in numbers.values()):
        return None
    if not isinstance(added, (int, float)) or not isinstance(ended, (int, float, type(None))):
        return None
    return Transfer(
        identity, job, state, float(added), ended and float(ended), failure, result=result, **numbers
    )


def _decode_job(kind: object, value: dict[str, object]) -> Job:
    """Convert a stored job.

    Raises:
        ValueError, TypeError, KeyError: it is invalid.
    """
    if kind == "pull":
        doubted = value["doubted"]
        if not isinstance(doubted, (list, tuple)):
            raise TypeError("doubted")
        rate = value.get("rate_limit")  # version 0.1 had none
        if rate is not None and (not isinstance(rate, (int, float)) or not 0 < rate < 1e15):
            raise TypeError("rate_limit")
        spec = _check_str(value["spec"])
        return Pull(spec, tuple(_check_str(path) for path in doubted), None if rate is None else float(rate))
    if kind == "push":
        create, delete = value["create"], value["delete"]
        if not isinstance(create, bool) or not isinstance(delete, bool):
            raise TypeError("create, delete")
        return Push(
            _check_str(value["folder"]),
            _check_str(value["repo"]),
            _check_str(value["branch"]),
            _check_str(value["message"]),
            create,
            delete,
        )
    raise ValueError(kind)


def _check_str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
