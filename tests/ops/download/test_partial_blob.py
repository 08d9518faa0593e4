"""Unfinished blobs and their journal after a kill, a power loss or damage."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from mlxk_tui.ops.download.byte_ranges import ByteRanges
from mlxk_tui.ops.download.partial_blob import (
    JOURNAL,
    PARTIAL,
    BusyError,
    JournalWriter,
    PartialBlob,
    boot_id,
    parse_journal,
    partial_file_names,
    resumable_bytes,
)

ETAG = hashlib.sha256(b"x").hexdigest()
SIZE = 4000
BOOT, NEXT_BOOT = b"b" * 16, b"c" * 16

spans = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 600)).map(lambda s: (s[0], min(SIZE, sum(s))))
steps = st.lists(st.one_of(spans, st.just(None)), max_size=12)
"""What a download does: writes of ranges, and checkpoints (None)."""


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "blobs"
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    yield fd
    os.close(fd)


def offsets(found: ByteRanges) -> set[int]:
    return {offset for start, end in found for offset in range(start, end)}


def journal(script: list[tuple[int, int] | None], boot: bytes = BOOT) -> tuple[bytes, set[int], set[int]]:
    """Return a journal, the written offsets, and the synced offsets."""
    writer = JournalWriter()
    raw = writer.header(ETAG, SIZE, boot)
    written: set[int] = set()
    durable: set[int] = set()
    for step in script:
        if step is None:
            raw += writer.synced(writer.records)
            durable = set(written)
        else:
            raw += writer.written(*step)
            written |= set(range(*step))
    return raw, written, durable


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 20))))
def test_spans_behave_like_a_set_of_offsets(script: list[tuple[bool, int, int]]) -> None:
    found, model = ByteRanges(), set[int]()
    for adding, start, length in script:
        new = set(range(start, start + length))
        if adding:
            assert found.add(start, start + length) == len(new - model)
            model |= new
        else:
            found.remove(start, start + length)
            model -= new
        assert offsets(found) == model
        assert found.total == len(model)
        assert found.prefix_end == next(n for n in range(100) if n not in model)
        assert offsets(ByteRanges(found.gaps(5, 50))) == set(range(5, 50)) - model
    ranges = list(found)
    assert all(end < later for (_, end), (later, _) in itertools.pairwise(ranges))


@given(steps)
def test_journal_covers_all_writes_since_boot(script: list[tuple[int, int] | None]) -> None:
    raw, written, durable = journal(script)
    found = parse_journal(raw, ETAG, SIZE, BOOT)
    assert found is not None
    assert offsets(found.written) == written
    assert offsets(found.durable) == durable


@given(steps)
def test_after_a_power_loss_only_synced_bytes_count(script: list[tuple[int, int] | None]) -> None:
    raw, _, durable = journal(script)
    found = parse_journal(raw, ETAG, SIZE, NEXT_BOOT)
    assert found is not None
    assert offsets(found.written) == offsets(found.durable) == durable


@pytest.mark.slow
@settings(max_examples=300)
@given(steps, st.data())
def test_damaged_journal_never_claims_unwritten_bytes(
    script: list[tuple[int, int] | None], data: st.DataObject
) -> None:
    raw, written, durable = journal(script)
    damaged = bytearray(raw[: data.draw(st.integers(0, len(raw)), label="kept")])
    for _ in range(data.draw(st.integers(0, 2), label="flips")):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    damaged += data.draw(st.binary(max_size=60), label="garbage")
    for boot, proven in ((BOOT, written), (NEXT_BOOT, durable)):
        found = parse_journal(bytes(damaged), ETAG, SIZE, boot)
        assert found is None or offsets(found.written) <= proven


@pytest.mark.parametrize("raw", [b"", b"x" * 10, b"\0" * 500, journal([(0, 9)])[0][1:]])
def test_garbage_is_not_a_journal(raw: bytes) -> None:
    assert parse_journal(raw, ETAG, SIZE, BOOT) is None


def test_journal_of_another_blob_is_ignored() -> None:
    raw, _, _ = journal([(0, 9)])
    assert parse_journal(raw, ETAG, SIZE + 1, BOOT) is None
    assert parse_journal(raw, hashlib.sha256(b"y").hexdigest(), SIZE, BOOT) is None


def test_record_beyond_the_end_of_the_file_ends_the_journal() -> None:
    writer = JournalWriter()
    raw = (
        writer.header(ETAG, SIZE, BOOT)
        + writer.written(0, 5)
        + writer.written(7, SIZE + 1)
        + writer.written(8, 9)
    )
    found = parse_journal(raw, ETAG, SIZE, BOOT)
    assert found is not None
    assert list(found.written) == [(0, 5)]


def test_next_process_finds_the_written_bytes(blobs: int) -> None:
    first = PartialBlob(blobs, ETAG, SIZE)
    first.write(100, b"abc")
    first.record(100, 103)
    first.close()
    assert resumable_bytes(blobs, ETAG, SIZE) == 3
    second = PartialBlob(blobs, ETAG, SIZE)
    assert list(second.written) == [(100, 103)]
    assert second.read(100, 3) == b"abc"
    second.close()


def test_bytes_without_a_record_do_not_count(blobs: int) -> None:
    first = PartialBlob(blobs, ETAG, SIZE)
    first.write(0, b"abc")
    first.close()
    second = PartialBlob(blobs, ETAG, SIZE)
    assert list(second.written) == []
    second.close()


def test_unsynced_bytes_of_an_earlier_boot_stay_discarded(blobs: int) -> None:
    """A checkpoint after a reboot must not include bytes that were not synced before it."""
    first = PartialBlob(blobs, ETAG, SIZE, boot=BOOT)
    for start in (0, 200):
        first.write(start, b"x" * 100)
        first.record(start, start + 100)
        if start == 0:
            first.checkpoint()
    first.close()
    second = PartialBlob(blobs, ETAG, SIZE, boot=NEXT_BOOT)
    assert list(second.written) == [(0, 100)]
    second.write(300, b"y" * 10)
    second.record(300, 310)
    second.checkpoint()
    second.close()
    third = PartialBlob(blobs, ETAG, SIZE, boot=b"d" * 16)
    assert list(third.written) == [(0, 100), (300, 310)]
    third.close()


def test_bytes_lost_by_the_file_system_do_not_count(blobs: int) -> None:
    first = PartialBlob(blobs, ETAG, SIZE)
    first.write(0, b"x" * 300)
    first.record(0, 300)
    first.close()
    fd = os.open(ETAG + PARTIAL, os.O_WRONLY, dir_fd=blobs)
    os.ftruncate(fd, 120)
    os.close(fd)
    assert resumable_bytes(blobs, ETAG, SIZE) == 120
    second = PartialBlob(blobs, ETAG, SIZE)
    assert list(second.written) == [(0, 120)]
    second.close()


def test_commit_leaves_only_the_blob(blobs: int) -> None:
    partial = PartialBlob(blobs, ETAG, 3)
    partial.write(0, b"abc")
    partial.record(0, 3)
    partial.checkpoint()
    partial.commit()
    partial.close()
    assert os.listdir(blobs) == [ETAG]


def test_discard_removes_all_files(blobs: int) -> None:
    partial = PartialBlob(blobs, ETAG, SIZE)
    partial.write(0, b"abc")
    partial.discard()
    partial.close()
    assert os.listdir(blobs) == []


def test_only_one_process_can_write(blobs: int) -> None:
    first = PartialBlob(blobs, ETAG, SIZE)
    with pytest.raises(BusyError):
        PartialBlob(blobs, ETAG, SIZE)
    first.close()
    PartialBlob(blobs, ETAG, SIZE).close()


@pytest.mark.parametrize("ending", [PARTIAL, JOURNAL])
@pytest.mark.parametrize("make", [os.symlink, os.link])
def test_links_are_not_written_through(
    blobs: int, tmp_path: Path, ending: str, make: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    make(victim, tmp_path / "blobs" / (ETAG + ending))
    partial = PartialBlob(blobs, ETAG, SIZE)
    partial.write(0, b"overwritten")
    partial.record(0, 11)
    partial.close()
    assert victim.read_bytes() == b"precious"


def test_boot_id_is_constant_until_reboot() -> None:
    if sys.platform not in {"linux", "darwin"}:
        pytest.skip("no boot id is known for this system: synced bytes alone count")
    assert boot_id() == boot_id()


_FULL = """
import os, resource, signal, sys
from mlxk_tui.ops.download.partial_blob import PartialBlob
fd = os.open(sys.argv[1], os.O_RDONLY)
partial = PartialBlob(fd, sys.argv[2], 4000)
partial.write(0, b"x" * 1000)
partial.record(0, 1000)
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    partial.write(1000, b"y" * 1000)
except OSError as error:
    print(error.errno)
"""


def test_full_disk_keeps_recorded_bytes(blobs: int, tmp_path: Path) -> None:
    """A file size limit of 1,500 bytes simulates the full disk."""
    assert resource.RLIMIT_FSIZE >= 0
    found = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path / "blobs", ETAG], capture_output=True, text=True, check=True
    )
    assert int(found.stdout) == errno.EFBIG
    again = PartialBlob(blobs, ETAG, SIZE)
    assert list(again.written) == [(0, 1000)]
    assert again.read(0, SIZE)[:1000] == b"x" * 1000
    again.close()


def test_file_names_are_recognized_as_unfinished(blobs: int) -> None:
    assert all(
        name.startswith(ETAG + ".") and name.endswith(".incomplete") for name in partial_file_names(ETAG)
    )
