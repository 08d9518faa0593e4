"""Builds Hugging Face caches for tests, with exactly the layout of huggingface_hub 2.

    cache = HfCache(tmp_path / "hub")
    repo = cache.repo("org/model")
    commit = repo.add(model_files())                     # refs/main -> commit, trees/<commit>.json, locks
    older = repo.add({"config.json": b"{}"}, refs=())    # an unreferenced revision
    repo.add(model_files(), shared=True, refs=["v2"])    # LFS payloads in the cache-wide shared store

Blobs are named by their real checksum (sha256 for LFS files, git-sha1 for others), and snapshot entries are
relative links, so `scan_cache_dir` and `snapshot_download(local_files_only=True)` of huggingface_hub accept
the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import scan_cache_dir

LFS_ENDINGS = (".safetensors", ".bin", ".gguf", ".model", ".npz", "tokenizer.json")
"""Names that the hub keeps as LFS objects in these tests; every other file is a plain git blob."""

SHARED_MARKER = ".huggingface-shared-blobs"
"""File that marks `<cache>/blobs` as huggingface_hub's shared store; it holds the layout version."""

_DTYPE_BYTES = {"F64": 8, "F32": 4, "U32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}


def sha256(data: bytes) -> str:
    """Return the etag of an LFS file."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Return the etag of a file stored in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(name: str) -> bool:
    """Return whether the hub would store this file in LFS."""
    return name.endswith(LFS_ENDINGS)


def etag_of(name: str, data: bytes) -> str:
    """Return the name of this file's blob in a cache."""
    return sha256(data) if is_lfs(name) else git_sha1(data)


def xet_hash_of(data: bytes) -> str:
    """Return a name for the shared store.

    The real name is a Merkle hash of chunks; for tests, any 64 hex digits derived from the content will do.
    """
    return sha256(b"xet\0" + data)


def safetensors(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
    fill: bytes = b"\x01",
) -> bytes:
    """Return a valid safetensors file for name -> (dtype, shape); each byte of data is `fill`."""
    wanted = {"model.embed_tokens.weight": ("F16", (4, 8))} if tensors is None else tensors
    header: dict[str, object] = {}
    if metadata is not None:
        header["__metadata__"] = dict(metadata)
    end = 0
    for name, (dtype, shape) in wanted.items():
        size = _DTYPE_BYTES[dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + fill * end


CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 4,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "quantization": {"group_size": 64, "bits": 4},
}
"""A small config.json of an architecture that mlx-lm knows."""

README = b"---\nlibrary_name: mlx\nlicense: apache-2.0\ntags:\n- mlx\n---\n# A model\n"


def model_files(
    *, shards: int = 1, fill: bytes = b"\x01", config: Mapping[str, object] | None = None, chat: bool = True
) -> dict[str, bytes]:
    """Return the files of a healthy, tiny MLX model; `fill` gives models different weights."""
    tokenizer_config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    if chat:
        tokenizer_config["chat_template"] = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    files = {
        "config.json": json.dumps({**CONFIG, **(config or {})}, indent=2).encode(),
        "tokenizer.json": b'{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}',
        "tokenizer_config.json": json.dumps(tokenizer_config).encode(),
        "README.md": README,
    }
    if shards == 1:
        return {**files, "model.safetensors": safetensors(fill=fill)}
    weight_map: dict[str, str] = {}
    for number in range(1, shards + 1):
        name = f"model-{number:05d}-of-{shards:05d}.safetensors"
        tensor = f"model.layers.{number}.weight"
        files[name] = safetensors({tensor: ("F16", (4, 8 + number))}, fill=fill)
        weight_map[tensor] = name
    total = sum(len(data) for name, data in files.items() if name.endswith(".safetensors"))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    return {**files, "model.safetensors.index.json": json.dumps(index).encode()}


def commit_of(name: str, files: Mapping[str, bytes]) -> str:
    """Return a commit hash derived from the content."""
    digest = hashlib.sha1(name.encode())
    for path, data in sorted(files.items()):
        digest.update(path.encode() + b"\0" + data)
    return digest.hexdigest()


@dataclass(frozen=True)
class HfCache:
    """A hub cache folder; it is created, with CACHEDIR.TAG, together with the first repo."""

    root: Path

    @property
    def store(self) -> Path:
        """The folder of the shared store."""
        return self.root / "blobs"

    def create(self) -> HfCache:
        """Create the empty cache folder."""
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
        return self

    def repo(self, name: str) -> HfRepo:
        """Return the model repo with this name, without writing anything."""
        return HfRepo(self, name)

    def payload(self, data: bytes) -> Path:
        """Return the path of this content in the shared store."""
        key = xet_hash_of(data)
        return self.store / key[:2] / key

    def manifest(self, data: bytes) -> Path:
        """Return the manifest of this content, which lists the links to it."""
        payload = self.payload(data)
        return payload.with_name(payload.name + ".refs")

    def mark_store(self) -> None:
        """Create the shared store."""
        self.store.mkdir(parents=True, exist_ok=True)
        (self.store / SHARED_MARKER).write_text("1\n")

    def add_payload(self, data: bytes, references: Iterable[str] | None = ()) -> Path:
        """Add content to the shared store; `references` are the lines of the manifest, None omits it."""
        self.mark_store()
        payload = self.payload(data)
        payload.parent.mkdir(exist_ok=True)
        if not payload.exists():
            payload.write_bytes(data)
            payload.chmod(0o444)
        payload.with_name(payload.name + ".lock").touch()
        if references is not None:
            with self.manifest(data).open("a") as manifest:
                manifest.writelines(f"{line}\n" for line in references)
        return payload


@dataclass(frozen=True)
class HfRepo:
    """One `models--*` folder."""

    cache: HfCache
    name: str

    @property
    def dir_name(self) -> str:
        """The folder's name."""
        return "models--" + self.name.replace("/", "--")

    @property
    def path(self) -> Path:
        """The folder."""
        return self.cache.root / self.dir_name

    @property
    def blobs(self) -> Path:
        """The folder of the blobs."""
        return self.path / "blobs"

    @property
    def locks(self) -> Path:
        """The folder of this repo's lock files, which huggingface_hub keeps after a download."""
        return self.cache.root / ".locks" / self.dir_name

    def snapshot(self, commit: str) -> Path:
        """Return the folder of a revision."""
        return self.path / "snapshots" / commit

    def tree(self, commit: str) -> Path:
        """Return the path of the cached file list of a revision."""
        return self.path / "trees" / f"{commit}.json"

    def ref(self, name: str, commit: str) -> Path:
        """Write a ref (no newline at the end, as huggingface_hub does) and return its file."""
        path = self.path / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
        return path

    def blob(self, name: str, data: bytes) -> Path:
        """Return the path of this file's blob."""
        return self.blobs / etag_of(name, data)

    def add(
        self,
        files: Mapping[str, bytes],
        *,
        commit: str | None = None,
        refs: Iterable[str] = ("main",),
        tree: bool = True,
        locks: bool = True,
        shared: bool | Collection[str] = False,
        modified: float | None = None,
    ) -> str:
        """Add one complete revision.

        Args:
            files: path in the repo (forward slashes) -> content.
            commit: 40 hex digits; by default derived from the content.
            refs: branches and tags of the revision.
            tree: write `trees/<commit>.json`, like huggingface_hub 2.
            locks: create the lock files that a download leaves behind.
            shared: store all LFS files, or those named, in the shared store.
            modified: modification time of blobs, links and snapshot folder, in seconds since the epoch.

        Returns:
            The commit hash.
        """
        self.cache.create()
        commit = commit or commit_of(self.name, files)
        snapshot = self.snapshot(commit)
        snapshot.mkdir(parents=True, exist_ok=True)
        self.blobs.mkdir(exist_ok=True)
        for name, data in files.items():
            in_store = is_lfs(name) if isinstance(shared, bool) and shared else name in _names(shared)
            blob = self._write_blob(name, data, in_store=in_store)
            entry = snapshot / name
            entry.parent.mkdir(parents=True, exist_ok=True)
            if not entry.is_symlink():
                entry.symlink_to(os.path.relpath(blob, entry.parent))
            if locks:
                self.locks.mkdir(parents=True, exist_ok=True)
                (self.locks / f"{blob.name}.lock").touch()
            if modified is not None:
                os.utime(blob, (modified, modified))
                os.utime(blob, (modified, modified), follow_symlinks=False)
                os.utime(entry, (modified, modified), follow_symlinks=False)
        if tree:
            self.write_tree(commit, files, shared=shared)
        for ref in refs:
            self.ref(ref, commit)
        if modified is not None:
            os.utime(snapshot, (modified, modified))
        return commit

    def write_tree(
        self, commit: str, files: Mapping[str, bytes], *, shared: bool | Collection[str] = False
    ) -> Path:
        """Write the file list that huggingface_hub caches for a revision, and return its path."""
        entries: dict[str, dict[str, object]] = {}
        for name, data in sorted(files.items()):
            entry: dict[str, object] = {"size": len(data), "blob_id": git_sha1(data)}
            if is_lfs(name):
                # For an LFS file git stores a small pointer, whose hash readers do not need.
                entry |= {"blob_id": git_sha1(sha256(data).encode()), "lfs_sha256": sha256(data)}
                entry |= {"lfs_size": len(data)}
                if shared is True or name in _names(shared):
                    entry["xet_hash"] = xet_hash_of(data)
            entries[name] = entry
        path = self.tree(commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"format_version": 1, "files": entries}, indent=1))
        return path

    def partial(self, etag: str, data: bytes = b"half", *, modified: float | None = None) -> Path:
        """Create the partial file of a killed download and return its path."""
        self.blobs.mkdir(parents=True, exist_ok=True)
        path = self.blobs / f"{etag}.0123abcd.incomplete"
        path.write_bytes(data)
        if modified is not None:
            os.utime(path, (modified, modified))
        return path

    def lock(self, etag: str) -> FileLock:
        """Return the lock that huggingface_hub holds to download a blob."""
        self.locks.mkdir(parents=True, exist_ok=True)
        return FileLock(self.locks / f"{etag}.lock")

    def _write_blob(self, name: str, data: bytes, *, in_store: bool) -> Path:
        blob = self.blob(name, data)
        if os.path.lexists(blob):
            return blob
        if in_store:
            payload = self.cache.add_payload(data, [f"{self.dir_name}/blobs/{blob.name}"])
            blob.symlink_to(os.path.relpath(payload, blob.parent))
        else:
            blob.write_bytes(data)
        return blob


def _names(shared: bool | Collection[str]) -> Collection[str]:
    return () if isinstance(shared, bool) else shared


def tree_of(root: Path) -> dict[str, tuple[str, int, str]]:
    """Return every entry below a folder: relative path -> (kind, mode, content or link target).

    Links are not followed. Compare two results to check that a folder was not changed.
    """
    found: dict[str, tuple[str, int, str]] = {}
    for folder, folders, names in os.walk(root, followlinks=False):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode & 0o7777
            key = os.path.relpath(path, root)
            if os.path.islink(path):
                found[key] = ("link", mode, os.readlink(path))
            elif os.path.isdir(path):
                found[key] = ("folder", mode, "")
            elif os.path.isfile(path):
                found[key] = ("file", mode, sha256(Path(path).read_bytes()))
            else:
                found[key] = ("other", mode, "")
    return found


def payload_bytes(root: Path) -> int:
    """Return the bytes that deleting a folder can free: its regular files, each hard link once."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            stat = os.lstat(os.path.join(folder, name))
            if not os.path.islink(os.path.join(folder, name)):
                seen[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(seen.values())


def huggingface_hub_warnings(root: Path) -> list[str]:
    """Return the warnings of huggingface_hub's scan of a cache, except for the tests' sentinel."""
    return [str(warning) for warning in scan_cache_dir(root).warnings if "/.mlxk" not in str(warning)]


@contextlib.contextmanager
def held_by_another_process(lock: Path) -> Iterator[None]:
    """Hold a lock in a second process, like a running download."""
    code = (
        "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n print(1, flush=True)\n sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            if holder.stdout is None or holder.stdout.readline() != "1\n":
                raise RuntimeError(f"the lock {lock} could not be taken")
            yield
        finally:
            holder.communicate()
