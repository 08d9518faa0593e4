"""The headless tour: every command once on the sample cache, shown as typed and checked (`make demo`)."""

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
_ROTTEN = "mlx-community/SmolLM2-135M-Instruct-4bit"
_SMALL = "sentence-transformers/all-MiniLM-L6-v2"

_GATED = "prompt-lab/gemma-2-2b-it-4bit"

Data = dict[str, Any]
"""`data` of an envelope, as JSON."""


@dataclass(frozen=True)
class Stop:
    """One command of the tour."""

    about: str
    """What it shows, one sentence."""
    arguments: tuple[str, ...]
    exit_code: int = 0
    output: tuple[str, ...] = ()
    """What must stand in its output."""
    data: Callable[[Data], bool] | None = None
    """What must hold of the envelope's data, where the arguments have `--json`."""
    holds: Callable[[], bool] | None = None
    """What else must hold afterwards."""


_ANSWER = Stop(
    "Ask the tiny model, which knows only this program.",
    ("run", tiny_model.NAME, tiny_model.SUGGESTIONS[1], "--temperature", "0", "--verbose"),
    output=("tok/s",),
)


def stops(folder: Path) -> list[Stop]:
    """Return the tour; `folder` is where it may write."""
    total = len(SAMPLES) + 1  # the tiny model
    clone = folder / "clone"
    return [
        Stop(
            "Everything in the cache.",
            ("list", "--all", "--health"),
            output=(_LLAMA, "132GB", "unhealthy"),
        ),
        Stop(
            "What is wrong, and with what.",
            ("health",),
            output=(f"total {total}", "1 shard of 6 missing"),
        ),
        Stop(
            "One model, with its files.", ("show", _LLAMA, "--files"), output=("model.safetensors", "1.81GB")
        ),
        Stop(
            "A broken one, by a part of its name.", ("show", "mixtral"), output=(_MIXTRAL, "00004-of-00006")
        ),
        Stop("This one looks sound …", ("health", _ROTTEN), output=("unhealthy 0",)),
        Stop(
            "… but one byte has changed, and only the checksum shows it.",
            ("health", _ROTTEN, "--verify", "--exit-code"),
            exit_code=1,
            output=("unhealthy 1", "checksum"),
        ),
        Stop("A name that is not exact deletes nothing.", ("rm", "SmolLM2"), exit_code=1, output=(_ROTTEN,)),
        Stop("The exact name does.", ("rm", _ROTTEN), output=("75.8MB",)),
        Stop(
            "What updates and dead downloads left behind.",
            ("prune", "--dry-run"),
            output=("Qwen3-1.7B-8bit", "1.94GB"),
        ),
        Stop("Away with it.", ("prune", "--force"), output=("1.94GB",)),
        Stop(
            "Scripts get JSON: nothing is left to prune.",
            ("prune", "--dry-run", "--json"),
            data=lambda data: data["freed_bytes"] == 0 and data["dry_run"] is True,
        ),
        Stop(
            "A copy that can be worked on.",
            ("clone", _SMALL, str(clone)),
            output=("all-MiniLM-L6-v2",),
            holds=lambda: (clone / "model.safetensors").stat().st_size > 90_000_000,
        ),
        Stop("What does the hub have?", ("search", "smollm2"), output=(_ROTTEN,)),
        Stop(
            "What would come, and does it fit? Nothing is written yet.",
            ("pull", _ROTTEN, "--dry-run"),
            output=("75.8MB", "free on disk"),
        ),
        Stop("The removed model comes back, every byte checked.", ("pull", _ROTTEN), output=("Pulled",)),
        Stop("It is sound now.", ("health", _ROTTEN, "--verify"), output=("unhealthy 0",)),
        Stop("Once more: nothing to do.", ("pull", _ROTTEN), output=("here and complete",)),
        Stop(
            "A gated repo says where to ask for access, and leaves nothing behind.",
            ("pull", _GATED, "--json"),
            exit_code=1,
            output=("access_denied",),
        ),
        *([_ANSWER] if Runtime.here().mlx_lm is not None else []),
        Stop(
            "As many models as at the start.",
            ("health",),
            output=(f"total {total}",),
        ),
    ]


def main() -> int:
    """Run the tour and return 0 when everything did what it should, else 1."""
    faults: list[str] = []
    with DemoSession() as session:
        folder = session.home
        _say(f"A tour of {COMMAND} on a sample of {len(SAMPLES) + 1} repos in {session.cache.root}\n")
        for stop in stops(folder):
            _say(f"# {stop.about}\n$ {COMMAND} {' '.join(stop.arguments)}")
            fault = visit(stop, session.cache.root)
            if fault is not None:
                faults.append(f"{' '.join(stop.arguments)}: {fault}")
                _say(f"!! {fault}")
            _say("")
    for fault in faults:
        sys.stderr.write(f"tour: {fault}\n")
    _say("The tour went as it should; the sample is removed." if not faults else "The tour found faults.")
    return 1 if faults else 0


def visit(stop: Stop, root: Path) -> str | None:
    """Run one command, show what it printed and return what was wrong with it."""
    result = _run(("--cache-dir", str(root), *stop.arguments))
    _say("\n".join(text for text in (_shortened(result.stdout), result.stderr.strip()) if text))
    if result.returncode != stop.exit_code:
        return f"exit status {result.returncode}, not {stop.exit_code}"
    missing = [text for text in stop.output if text not in result.stdout + result.stderr]
    if missing:
        return f"the output lacks {missing[0]!r}"
    try:
        if stop.data is not None and not stop.data(json.loads(result.stdout)["data"]):
            return "the data is not what it should be"
        if stop.holds is not None and not stop.holds():
            return "it did not do what it should"
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


def _shortened(text: str, lines: int = 40, width: int = 600) -> str:
    """Return the text, cut after so many lines and, in each, so many characters."""
    every = [line if len(line) <= width else f"{line[:width]} …" for line in text.strip().splitlines()]
    return "\n".join([*every[:lines], *(["  …"] if len(every) > lines else [])])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
