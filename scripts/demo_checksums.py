"""Update mlxk_tui/demo/checksums.py: the sha256 of every large file of the sample.

Run it after a change to the sample's weights: `.venv/bin/python scripts/demo_checksums.py`. It hashes some
250 GB of mostly zeros on all cores, without touching the disk; existing checksums are kept. With `--check` it
hashes everything and fails if the file is out of date.
"""

# ruff: noqa: T201 - scripts print their results

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "mlxk_tui" / "demo" / "checksums.py"
MAX_SMALL_BYTES = 1 << 20
"""Files up to this size are hashed when the sample is built."""

sys.path.insert(0, str(ROOT))

from mlxk_tui.demo.checksums import CHECKSUMS  # noqa: E402 - the path is set above
from mlxk_tui.demo.sample import large_payloads  # noqa: E402 - the path is set above


def main() -> int:
    """Compute the missing checksums (all with `--check`) and write or compare the file."""
    check = "--check" in sys.argv[1:]
    known = {} if check else CHECKSUMS
    payloads = {p.key: p for _, p in large_payloads() if p.size > MAX_SMALL_BYTES}
    missing = sorted((p for key, p in payloads.items() if key not in known), key=lambda p: -p.size)
    total = sum(p.size for p in payloads.values())
    print(f"{len(payloads)} files, {total / 1e9:.1f} GB; {len(missing)} to hash")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(
            zip((p.key for p in missing), pool.map(lambda p: p.compute_sha256(), missing), strict=True)
        )
    checksums = {key: found.get(key) or known[key] for key in payloads}
    lines = [
        '"""SHA-256 checksums of the sample\'s large files by size and head, from demo_checksums.py."""',
        "",
        "from __future__ import annotations",
        "",
        "CHECKSUMS: dict[str, str] = {",
        *(f'    "{key}": "{checksums[key]}",' for key in sorted(checksums)),
        "}",
        "",
    ]
    text = "\n".join(lines)
    if check:
        same = TARGET.read_text() == text
        print(
            "checksums.py is up to date" if same else "checksums.py is OUT OF DATE: run this without --check"
        )
        return 0 if same else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
