"""The downloader without faults: layout, reuse, repair, events, and huggingface_hub beside it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from mlxk_tui.demo.hub import Fault, Generated, LocalHub
from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.download.download import DownloadOptions, discard_partial, download
from mlxk_tui.ops.hub.remote_files import RemoteFile
from tests.support.downloads import FAST, Model, checksum, small_files
from tests.support.hf_cache import held_by_another_process, huggingface_hub_warnings
from tests.support.unprivileged import give_away, open_folder, unprivileged
from tests.support.waiting import cancel, until


@pytest.fixture(scope="module")
def local_hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


@pytest.fixture
def model(local_hub: LocalHub, hub: Path) -> Model:
    local_hub.faults.clear()
    local_hub.requests.clear()
    local_hub.rate_per_connection = None
    return Model(local_hub, "org/model", local_hub.add_repo("org/model", small_files()), hub)


async def test_first_download_is_complete_and_leaves_no_other_files(model: Model) -> None:
    done = await model.download()
    assert (done.bytes_downloaded, done.bytes_reused, done.files) == (model.size, 0, 4)
    model.check_whole()
    assert os.readlink(model.snapshot / "sub/folder/notes.md") == "../../../../blobs/" + model.etag(
        "sub/folder/notes.md"
    )


async def test_huggingface_hub_accepts_the_download(model: Model) -> None:
    await model.download()
    (model.folder / "refs").mkdir()
    (model.folder / "refs" / "main").write_text(model.commit)
    found = await asyncio.to_thread(
        snapshot_download, model.name, cache_dir=model.cache, local_files_only=True
    )
    assert Path(found) == model.snapshot
    assert huggingface_hub_warnings(model.cache) == []
    scanned = await asyncio.to_thread(scan_cache_dir, model.cache)
    assert {repo.repo_id: repo.nb_files for repo in scanned.repos} == {model.name: 4}


async def test_second_download_sends_no_requests(model: Model) -> None:
    await model.download()
    model.hub.requests.clear()
    done = await model.download()
    assert (done.bytes_downloaded, done.bytes_reused) == (0, model.size)
    assert len(model.hub.requests) == 0


async def test_another_commit_downloads_only_new_files(model: Model) -> None:
    await model.download()
    newer = Model(model.hub, model.name, model.hub.commit(model.name, {"new.txt": b"new"}), model.cache)
    done = await newer.download()
    assert done.bytes_downloaded == 3
    assert newer.in_snapshot() == model.in_snapshot() | {"new.txt"}


async def test_blob_with_two_names_is_downloaded_once(model: Model) -> None:
    twice = {"a.bin": Generated(70_000, 9), "b/c.bin": Generated(70_000, 9)}
    model.commit = model.hub.add_repo("org/model", twice)
    done = await model.download()
    assert done.bytes_downloaded == 70_000
    model.check_whole()


async def test_without_symlinks_the_snapshot_contains_the_files(model: Model) -> None:
    model.commit = model.hub.add_repo("org/model", {**small_files(), "copy.json": b'{"model_type": "llama"}'})
    options = replace(FAST, links=False)
    await model.download(options)
    assert not any(path.is_symlink() for path in model.snapshot.rglob("*"))
    assert model.in_snapshot() == {file.path for file in model.files}
    model.check_nothing_wrong()
    again = await model.download(options)
    assert again.bytes_downloaded == 0


async def test_untrusted_blob_is_downloaded_again_and_replaced(model: Model) -> None:
    await model.download()
    blob = model.blobs / model.etag("model.safetensors")
    blob.write_bytes(b"\0" * 300_000)
    assert (await model.download()).bytes_downloaded == 0  # the size is right, so the file is not checked
    done = await model.download(replace(FAST, redownload=frozenset({blob.name})))
    assert done.bytes_downloaded == 300_000
    model.check_whole()


@pytest.mark.parametrize("size", [0, 10, 299_999, 300_001])
async def test_blob_of_another_size_is_replaced(model: Model, size: int) -> None:
    model.blobs.mkdir(parents=True)
    (model.blobs / model.etag("model.safetensors")).write_bytes(b"x" * size)
    await model.download()
    model.check_whole()


async def test_entry_in_place_of_a_link_is_replaced(model: Model) -> None:
    model.snapshot.mkdir(parents=True)
    (model.snapshot / "config.json").symlink_to("../../blobs/" + "0" * 40)
    (model.snapshot / "model.safetensors").write_bytes(b"half")
    await model.download()
    model.check_whole()


async def test_blob_in_the_shared_store_is_used(model: Model) -> None:
    etag = model.etag("config.json")
    payload = model.cache / "blobs" / "ab" / ("ab" * 32)
    payload.parent.mkdir(parents=True)
    payload.write_bytes(b'{"model_type": "llama"}')
    model.blobs.mkdir(parents=True)
    (model.blobs / etag).symlink_to("../../blobs/ab/" + payload.name)
    done = await model.download()
    assert done.bytes_reused == len(payload.read_bytes())
    assert (model.blobs / etag).is_symlink()


async def test_blob_linked_out_of_the_cache_is_replaced_and_not_followed(
    model: Model, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b'{"model_type": "LLAMA"}')
    model.blobs.mkdir(parents=True)
    (model.blobs / model.etag("config.json")).symlink_to(outside)
    await model.download()
    model.check_whole()
    assert outside.read_bytes() == b'{"model_type": "LLAMA"}'


@pytest.mark.parametrize("which", ["blobs", "snapshots", "snapshots/COMMIT", "snapshots/COMMIT/sub"])
async def test_linked_folder_is_rejected(model: Model, tmp_path: Path, which: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = model.folder / which.replace("COMMIT", model.commit)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    with pytest.raises(OpError, match="is a link") as caught:
        await model.download()
    assert caught.value.type is ErrorType.PERMISSION_DENIED
    assert os.listdir(outside) == []


async def test_killed_download_of_huggingface_hub_is_kept(model: Model) -> None:
    orphan = model.blobs / f"{model.etag('model.safetensors')}.12ab34cd.incomplete"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"half")
    await model.download()
    assert orphan.read_bytes() == b"half"
    orphan.unlink()
    model.check_whole()


async def test_leftover_journal_of_a_finished_blob_is_removed(model: Model) -> None:
    """A process was killed between renaming the blob and deleting the journal."""
    await model.download()
    journal = model.blobs / f"{model.etag('model.safetensors')}.mlxk-journal.incomplete"
    journal.write_bytes(b"left")
    done = await model.download()
    assert done.bytes_downloaded == 0
    model.check_whole()


@pytest.mark.slow
async def test_events_report_each_file_and_the_total(model: Model) -> None:
    model.hub.rate_per_connection = 150_000
    await model.download()
    about = [event for event in model.events if event.file == "model.safetensors"]
    assert about
    assert {event.file_bytes_total for event in about} == {300_000}
    assert [event.file_bytes_done for event in about] == sorted(event.file_bytes_done for event in about)
    assert all(event.bytes_total == model.size and event.files_total == 4 for event in model.events)
    for file in model.files:  # also small files: each is reported again once it is in the snapshot
        ends = [event for event in model.events if event.file == file.path][-1]
        assert (ends.stage, ends.file_bytes_done, ends.file_bytes_total) == ("pull", file.size, file.size)
    last = model.events[-1]
    assert (last.stage, last.file, last.bytes_done, last.files_done) == ("pull", "", model.size, 4)


async def test_token_is_sent_only_to_the_hub(model: Model) -> None:
    await model.download()
    assert {request.authorization for request in model.hub.requests if request.origin == "hub"} == {True}
    assert {request.authorization for request in model.hub.requests if request.origin == "cdn"} == {False}


async def test_large_files_are_downloaded_in_ranges_over_several_connections(model: Model) -> None:
    model.commit = model.hub.add_repo("org/model", {"model.safetensors": Generated(8 << 20, 4)})
    model.hub.rate_per_connection = 4e6
    await model.download()
    parts = model.hub.requests.matching("*model.safetensors", origin="cdn")
    assert len(parts) >= 4
    assert len({part.connection for part in parts}) >= 4
    assert model.sent == 8 << 20
    model.check_whole()


async def test_redirect_of_a_large_file_is_requested_once(model: Model) -> None:
    model.commit = model.hub.add_repo("org/model", {"model.safetensors": Generated(12 << 20, 4)})
    await model.download(replace(FAST, connections=1))  # several may start before the first response
    assert len(model.hub.requests.matching("/org/model/resolve/*", origin="hub")) == 1
    assert len(model.hub.requests.matching("*model.safetensors", origin="cdn")) >= 2


async def test_download_waits_for_another_process(model: Model) -> None:
    etag = model.etag("model.safetensors")
    lock = model.cache / ".locks" / model.folder.name / f"{etag}.lock"
    lock.parent.mkdir(parents=True)
    with held_by_another_process(lock):
        task = asyncio.create_task(model.download())
        await until(lambda: any(event.stage == "wait" for event in model.events))
        assert not task.done()
        model.blobs.mkdir(exist_ok=True)
        (model.blobs / etag).write_bytes(model.hub.read(model.name, "model.safetensors"))
    done = await task
    assert done.bytes_reused == 300_000
    assert not model.hub.requests.matching("*model.safetensors")
    model.check_whole()


async def test_two_processes_download_each_file_once(model: Model) -> None:
    files = {f"model-{number}.safetensors": Generated(400_000, number) for number in range(8)}
    model.commit = model.hub.add_repo("org/model", files)
    model.hub.rate_per_connection = 800_000
    ours = [asyncio.create_subprocess_exec(*model.command(), stdout=subprocess.PIPE) for _ in range(2)]
    running = await asyncio.gather(*ours)
    await asyncio.gather(*(process.communicate() for process in running))
    assert [process.returncode for process in running] == [0, 0]
    assert model.sent == model.size
    model.check_whole()


async def huggingface_hub(model: Model) -> asyncio.subprocess.Process:
    """Start `hf download` of the model."""
    env = {
        **os.environ,
        "HF_ENDPOINT": model.hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_CACHE": str(model.cache),
    }
    hf = str(Path(sys.executable).parent / "hf")
    return await asyncio.create_subprocess_exec(
        hf, "download", model.name, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
async def test_huggingface_hub_completes_our_unfinished_download(model: Model) -> None:
    """Our unfinished files do not affect it, and are removed once its blob is found."""
    model.hub.faults.add(Fault("cut", path="*model.safetensors", origin="cdn", after_bytes=200_000))
    model.hub.faults.add(Fault("cut", path="*model.safetensors", origin="cdn", times=None))
    with pytest.raises(OpError):
        await model.download()
    model.hub.faults.clear()
    assert list(model.blobs.glob("*.mlxk.incomplete"))
    assert huggingface_hub_warnings(model.cache) == []
    theirs = await huggingface_hub(model)
    await theirs.communicate()
    assert theirs.returncode == 0
    done = await model.download()
    assert done.bytes_downloaded == 0
    model.check_whole()


@pytest.mark.slow
async def test_each_file_is_downloaded_once_beside_huggingface_hub(model: Model) -> None:
    files = {f"model-{number}.safetensors": Generated(400_000, number) for number in range(8)}
    model.commit = model.hub.add_repo("org/model", files)
    model.hub.rate_per_connection = 400_000
    theirs = await huggingface_hub(model)
    await until(lambda: bool(model.hub.requests.matching("*", origin="cdn")))
    await model.download()
    await theirs.communicate()
    assert theirs.returncode == 0
    assert model.sent == model.size
    model.check_whole()


async def test_cancel_is_immediate_and_keeps_downloaded_bytes(model: Model) -> None:
    model.commit = model.hub.add_repo("org/model", {"model.safetensors": Generated(4 << 20, 4)})
    model.hub.rate_per_connection = 300_000
    task = asyncio.create_task(model.download())
    await until(lambda: any(event.bytes_done > 500_000 for event in model.events))
    model.hub.rate_per_connection = 1000
    await cancel(task)
    assert model.sent < model.size
    model.check_nothing_wrong()
    model.hub.rate_per_connection = None
    done = await model.download()
    assert done.bytes_reused >= 500_000
    assert model.sent <= 1.05 * model.size
    model.check_whole()


async def test_download_can_be_cancelled_while_waiting_for_another_process(model: Model) -> None:
    etag = model.etag("model.safetensors")
    lock = model.cache / ".locks" / model.folder.name / f"{etag}.lock"
    lock.parent.mkdir(parents=True)
    with held_by_another_process(lock):
        task = asyncio.create_task(model.download())
        await until(lambda: any(event.stage == "wait" for event in model.events))
        await cancel(task)


async def test_forget_deletes_the_files_of_an_unfinished_download(model: Model) -> None:
    model.hub.faults.add(Fault("cut", path="*model.safetensors", times=None, after_bytes=5000))
    with pytest.raises(OpError):
        await model.download()
    left = [path for path in model.blobs.iterdir() if path.name.endswith(".incomplete")]
    assert left
    freed = await discard_partial(model.folder, [file.etag for file in model.files])
    assert freed > 5000
    assert not [path for path in model.blobs.iterdir() if path.name.endswith(".incomplete")]


async def test_read_only_cache_is_permission_denied(local_hub: LocalHub) -> None:
    local_hub.faults.clear()
    commit = local_hub.add_repo("org/model", small_files())
    with open_folder() as folder:
        give_away(folder)
        model = Model(local_hub, "org/model", commit, folder)
        folder.chmod(0o555)
        with unprivileged(), pytest.raises(OpError) as caught:
            await model.download()
    assert caught.value.type is ErrorType.PERMISSION_DENIED


async def test_lack_of_disk_space_is_detected_before_downloading(model: Model) -> None:
    huge = RemoteFile("model.safetensors", 1 << 49, "f" * 64, "sha256")
    with pytest.raises(OpError, match="more are needed") as caught:
        await download(model.source, [huge], model.folder)
    assert caught.value.type is ErrorType.DISK_FULL
    assert len(model.hub.requests) == 0
    assert not model.folder.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small tmpfs can only be mounted by root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_full_disk_is_an_error_and_the_download_can_be_resumed(model: Model, small_disk: Path) -> None:
    weights = Generated(1_500_000, 7)
    model = Model(
        model.hub, "org/model", model.hub.add_repo("org/model", {"w.safetensors": weights}), small_disk
    )
    model.hub.rate_per_connection = 400_000
    task = asyncio.create_task(model.download())
    await until(lambda: any(event.bytes_done for event in model.events))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 65536) == 65536 and shutil.disk_usage(small_disk).free:
            pass
    with pytest.raises(OpError) as caught:
        await task
    assert caught.value.type is ErrorType.DISK_FULL
    model.check_nothing_wrong()
    ballast.unlink()
    model.hub.rate_per_connection = None
    done = await model.download()
    assert done.bytes_reused > 0
    model.check_whole()


async def test_options_limit_the_connections(model: Model) -> None:
    model.commit = model.hub.add_repo("org/model", {"model.safetensors": Generated(2 << 20, 4)})
    await model.download(DownloadOptions(connections=1))
    assert len({request.connection for request in model.hub.requests.matching("*", origin="cdn")}) == 1
    assert checksum(model.snapshot / "model.safetensors", "sha256") == model.etag("model.safetensors")
