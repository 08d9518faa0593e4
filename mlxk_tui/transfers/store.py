"""The queue on disk: one JSON file that is always whole, and the lock that says who runs it."""

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
from mlxk_tui.ops.core.os_errors import reason_of
from mlxk_tui.ops.core.text import printable
from mlxk_tui.transfers.jobs import Failure, Job, Pull, Push, Transfer, TransferState

if TYPE_CHECKING:
    from filelock import BaseFileLock

VERSION = 1
"""Version of the file's layout."""
_MAX_BYTES = 20_000_000
_MAX_TRANSFERS = 10_000
_NUMBERS = ("attempts", "bytes_done", "bytes_total", "files_done", "files_total", "furthest")


def state_file(folder: Path, cache_root: Path) -> Path:
    """Return the queue's file for a cache: transfers belong to the cache that they fill.

    Args:
        folder: where the program keeps its state.
        cache_root: the hub folder, the one with `models--*`.
    """
    name = os.path.realpath(cache_root).encode("utf-8", "surrogateescape")
    return folder / f"transfers-{hashlib.sha256(name).hexdigest()[:12]}.json"


@dataclass(frozen=True)
class Stored:
    """What the file held."""

    transfers: tuple[Transfer, ...] = ()
    problem: str | None = None
    """What was wrong with it and where the old file lies now, as a sentence."""


class Store:
    """Reads and writes one queue; every method blocks and none keeps anything open but the lock.

    Args:
        path: the JSON file; its folder is made when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: BaseFileLock | None = None

    def claim(self) -> bool:
        """Take the lock that goes with the file; False where another process has it.

        Raises:
            OSError: the folder cannot be written to.
        """
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Taken in one thread and let go in another.
        lock = self._lock or FileLock(self.path.with_suffix(".lock"), thread_local=False, mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._lock = lock
        remove_unfinished(self.path)
        return True

    def release(self) -> None:
        """Let the lock go."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def read(self, *, repair: bool) -> Stored:
        """Return the stored transfers.

        Args:
            repair: whether a file that cannot be used is moved aside; only for whoever holds the lock.
        """
        try:
            if os.path.getsize(self.path) > _MAX_BYTES:
                return self._aside((), "is far too large", repair)
            document = json.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return Stored()
        except OSError as error:
            cause = reason_of(error)
            return Stored((), f"The list of transfers cannot be read: {self._shown}: {cause}.")
        except (ValueError, RecursionError):
            return self._aside((), "is damaged", repair)
        if not isinstance(document, dict) or not isinstance(document.get("transfers"), list):
            return self._aside((), "is damaged", repair)
        version = document.get("version")
        if version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            return self._aside((), "comes from a newer version" if newer else "is damaged", repair)
        found, bad, seen = [], 0, set()
        for value in document["transfers"][:_MAX_TRANSFERS]:
            transfer = _decode(value)
            if transfer is None or transfer.id in seen:
                bad += 1
            else:
                seen.add(transfer.id)
                found.append(transfer)
        if bad:
            return self._aside(tuple(found), f"holds {bad:,} that cannot be understood", repair)
        return Stored(tuple(found))

    def _aside(self, found: tuple[Transfer, ...], fault: str, repair: bool) -> Stored:
        if not repair:
            return Stored(found)
        kept = self.path.with_suffix(".bad.json")
        try:
            os.replace(self.path, kept)
        except OSError as error:
            return Stored(found, f"The list of transfers {self._shown} {fault} and stays: {error.strerror}.")
        name = printable(str(kept))
        return Stored(found, f"The list of transfers {fault}; it was kept as {name}.")

    def write(self, document: dict[str, Any]) -> None:
        """Replace the file with one that only its owner can read.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self.path, json.dumps(document, separators=(",", ":")), mode=0o600)

    @property
    def _shown(self) -> str:
        return printable(str(self.path))


def document_of(transfers: Iterable[Transfer]) -> dict[str, Any]:
    """Return what is written for these transfers."""
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
        "failure": failure.error.parts if failure else None,
        "result": transfer.result,
        **{name: getattr(transfer, name) for name in _NUMBERS},
    }


def _decode(value: object) -> Transfer | None:
    """Return a stored transfer; None where it is not one."""
    try:
        if not isinstance(value, dict):
            return None
        job = _job(value["kind"], value["job"])
        identity, state = value["id"], TransferState(value["state"])
        added, ended, result = value["added"], value["ended"], value["result"]
        failed = value["failure"]
        failure = Failure.of(OpError.from_parts(failed)) if failed else None
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


def _job(kind: object, value: dict[str, object]) -> Job:
    """Return a stored job.

    Raises:
        ValueError, TypeError, KeyError: it is none.
    """
    if kind == "pull":
        doubted = value["doubted"]
        if not isinstance(doubted, (list, tuple)):
            raise TypeError("doubted")
        return Pull(_text(value["spec"]), tuple(_text(path) for path in doubted))
    if kind == "push":
        create, delete = value["create"], value["delete"]
        if not isinstance(create, bool) or not isinstance(delete, bool):
            raise TypeError("create, delete")
        return Push(
            _text(value["folder"]),
            _text(value["repo"]),
            _text(value["branch"]),
            _text(value["message"]),
            create,
            delete,
        )
    raise ValueError(kind)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value
