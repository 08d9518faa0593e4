"""The headless tour (`make demo`): runs every command on the sample cache, and checks its output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxk_tui.demo import tiny_model
from mlxk_tui.demo.sample import SAMPLES
from mlxk_tui.demo.session import DemoSession
from mlxk_tui.ops.health.machine import Runtime

COMMAND = "mlxk-headless"

_LLAMA = "mlx-community/Llama-3.2-3B-Instruct-4bit"
_MIXTRAL = "mlx-community/Mixtral-8x7B-Instruct-v0.1-4bit"
_CORRUPT = "mlx-community/SmolLM2-135M-Instruct-4bit"
_SMALL = "sentence-transformers/all-MiniLM-L6-v2"

_GATED = "prompt-lab/gemma-2-2b-it-4bit"

Data = dict[str, Any]
"""The `data` of a JSON envelope."""


@dataclass(frozen=True)
class TourStep:
    """One command of the tour."""

    about: str
    """What it shows, as one sentence."""
    arguments: tuple[str, ...]
    exit_code: int = 0
    output: tuple[str, ...] = ()
    """Texts that the output must contain."""
    data: Callable[[Data], bool] | None = None
    """A condition for the data of the envelope, if the arguments include `--json`."""
    check: Callable[[], bool] | None = None
    """A condition that must be true after the command."""


_ANSWER = TourStep(
    "Ask the tiny model, which only knows this program.",
    ("run", tiny_model.NAME, tiny_model.SUGGESTIONS[1], "--temperature", "0", "--verbose"),
    output=("tok/s",),
)


def tour_steps(folder: Path) -> list[TourStep]:
    """Return the tour; `folder` is a writable folder."""
    total = len(SAMPLES) + 1  # with the tiny model
    clone, lock = folder / "clone", folder / "models.lock"
    return [
        TourStep(
            "List all models in the cache.",
            ("list", "--all", "--health"),
            output=(_LLAMA, "132 GB", "unhealthy"),
        ),
        TourStep(
            "Check the health of all models.",
            ("health",),
            output=(f"total {total}", "1 shard of 6 missing"),
        ),
        TourStep(
            "Show one model with its files.",
            ("show", _LLAMA, "--files"),
            output=("model.safetensors", "1.81 GB"),
        ),
        TourStep(
            "Show a broken one by a part of its name.",
            ("show", "mixtral"),
            output=(_MIXTRAL, "00004-of-00006"),
        ),
        TourStep("This model seems healthy …", ("health", _CORRUPT), output=("unhealthy 0",)),
        TourStep(
            "… but one byte is wrong, and only the checksum shows it.",
            ("health", _CORRUPT, "--verify", "--exit-code"),
            exit_code=1,
            output=("unhealthy 1", "checksum"),
        ),
        TourStep("A part of a name deletes nothing.", ("rm", "SmolLM2"), exit_code=1, output=(_CORRUPT,)),
        TourStep("The full name does.", ("rm", _CORRUPT), output=("75.8 MB",)),
        TourStep(
            "Find leftovers of updates and interrupted downloads.",
            ("prune", "--dry-run"),
            output=("Qwen3-1.7B-8bit", "1.94 GB"),
        ),
        TourStep("Delete them.", ("prune", "--force"), output=("1.94 GB",)),
        TourStep(
            "Check with JSON, for scripts, that nothing is left to prune.",
            ("prune", "--dry-run", "--json"),
            data=lambda data: data["freed_bytes"] == 0 and data["dry_run"] is True,
        ),
        TourStep(
            "Clone a model into a folder.",
            ("clone", _SMALL, str(clone)),
            output=("all-MiniLM-L6-v2",),
            check=lambda: (clone / "model.safetensors").stat().st_size > 90_000_000,
        ),
        TourStep(
            "Lock its commit and checksums.",
            ("lock", _SMALL, "--output", str(lock)),
            output=("1 model locked",),
        ),
        TourStep(
            "Compare the cache with the lock file.", ("lock", "--check", str(lock)), output=("as locked",)
        ),
        TourStep("Search the Hub.", ("search", "smollm2"), output=(_CORRUPT,)),
        TourStep(
            "Show what a pull would download, without writing anything.",
            ("pull", _CORRUPT, "--dry-run"),
            output=("75.8 MB", "free on disk"),
        ),
        TourStep("Pull the removed model again, with verification.", ("pull", _CORRUPT), output=("Pulled",)),
        TourStep("It is healthy now.", ("health", _CORRUPT, "--verify"), output=("unhealthy 0",)),
        TourStep("Pulling it again does nothing.", ("pull", _CORRUPT), output=("already complete",)),
        TourStep(
            "Find models with a newer commit on the Hub.",
            ("update", "--all", "--dry-run"),
            output=("3 updates available", "→"),
        ),
        TourStep(
            "Pulling a gated repo fails with a hint, and leaves no files.",
            ("pull", _GATED, "--json"),
            exit_code=1,
            output=("access_denied",),
        ),
        *([_ANSWER] if Runtime.detect().mlx_lm is not None else []),
        TourStep(
            "There are as many models as at the start.",
            ("health",),
            output=(f"total {total}",),
        ),
    ]


def main() -> int:
    """Run the tour; return 0 if all checks passed, else 1."""
    failures: list[str] = []
    with DemoSession() as session:
        folder = session.home
        _print(f"A tour of {COMMAND} on a sample of {len(SAMPLES) + 1} repos in {session.cache.root}\n")
        for step in tour_steps(folder):
            _print(f"# {step.about}\n$ {COMMAND} {' '.join(step.arguments)}")
            failure = run_step(step, session.cache.root)
            if failure is not None:
                failures.append(f"{' '.join(step.arguments)}: {failure}")
                _print(f"!! {failure}")
            _print("")
    for failure in failures:
        sys.stderr.write(f"tour: {failure}\n")
    _print("All checks passed. The sample has been removed." if not failures else "Some checks failed.")
    return 1 if failures else 0


def run_step(step: TourStep, root: Path) -> str | None:
    """Run one command and print its output; return an error message if a check failed."""
    result = _run(("--cache-dir", str(root), *step.arguments))
    _print("\n".join(text for text in (_truncate(result.stdout), result.stderr.strip()) if text))
    if result.returncode != step.exit_code:
        return f"exit status is {result.returncode}, expected {step.exit_code}"
    missing = [text for text in step.output if text not in result.stdout + result.stderr]
    if missing:
        return f"{missing[0]!r} is missing in the output"
    try:
        if step.data is not None and not step.data(json.loads(result.stdout)["data"]):
            return "unexpected data"
        if step.check is not None and not step.check():
            return "unexpected result"
    except (OSError, ValueError, LookupError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program, no shell
        [sys.executable, "-m", "mlxk_tui_headless", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def _truncate(text: str, lines: int = 40, width: int = 600) -> str:
    """Return the first `lines` lines of a text, each with up to `width` characters."""
    truncated = [line if len(line) <= width else f"{line[:width]} …" for line in text.strip().splitlines()]
    return "\n".join([*truncated[:lines], *(["  …"] if len(truncated) > lines else [])])


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
