"""Runs the real app for minutes with random keys and plots its memory: `make soak`.

    python -m benchmarks.soak [--minutes 20] [--seed 1] [--size 120x40] [--out FOLDER]

The app runs with `--demo` in a pseudo-terminal, with a temporary home. A seed always presses the same keys:
all panes, dialogs, help, palette, filters, chats with the tiny model, transfers, the server, clicks, and
terminal sizes. The keys never quit the app; SIGTERM stops it at the end.

Memory is that of the process alone (USS), every five seconds. FOLDER (`build/bench/soak`) gets `memory.csv`
and `memory.svg`. The exit status is 1 if the app exited early, wrote a crash report, left its folder in the
temporary directory, or grew steadily: by more than 1 MB per minute (median of the slopes between all pairs of
samples, Theil-Sen) after the first third, in which caches fill.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
import pty
import random
import re
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measure import BUILD

_MAX_GROWTH = 1_000_000
"""Bytes per minute after warming up."""
_SAMPLE_S = 5.0
_QUIET_S, _KEY_TIMEOUT_S = 0.03, 0.3
"""A key counts as handled after the first time without output, and at the latest after the second."""
_END_S = 60.0
_MLX = "mlx"
"""Folder in which MLX's CPU build caches compiled kernels for all programs."""
_COMPILING = re.compile(r"cc\w{6}\.\w+")
"""Temporary files of a compiler that MLX started; the compiler removes them itself."""
_BLOCKS = "▁▂▃▄▅▆▇█"

_ESCAPE, _ENTER = "\x1b", "\r"
_ARROWS = ["\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[5~", "\x1b[6~", "\x1b[H", "\x1b[F"]
_PANES = ["\x1bOP", "\x1bOQ", "\x1bOR", "\x1bOS", "\x1b[15~"]
_QUIT = {"q"}
"""Keys that would quit the app."""
_LETTERS = [letter for letter in "abcdefghijklmnoprstuvwxyzACDGNPRSTVX?/ 12345" if letter not in _QUIT]
_WORDS = ["who are you", "chat", "type:chat", "health:bad", "llama", "theme", "What can you do?", "size>1GB"]
_SIZES = [(120, 40), (80, 24), (100, 30), (60, 18), (200, 50)]


@dataclass(frozen=True)
class Sample:
    """Memory at one moment."""

    seconds: float
    keys: int
    app: int
    """Bytes of the app's process."""
    children: int
    """Bytes of all its child processes."""


class Terminal:
    """A program in a pseudo-terminal whose output is read and discarded."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], size: tuple[int, int]) -> None:
        self.master, slave = pty.openpty()
        self.tail = b""
        self.resize(*size)
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, env=env, cwd=env["HOME"], start_new_session=True
        )
        os.close(slave)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the terminal; the system notifies the program."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Press keys and wait until the result has been drawn."""
        os.write(self.master, keys.encode())
        end = time.monotonic() + _KEY_TIMEOUT_S
        while time.monotonic() < end and self.drain(_QUIET_S):
            pass

    def drain(self, seconds: float) -> bool:
        """Read the output of this many seconds; return False if there is none."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:  # Linux: the other side is closed
            return False
        self.tail = (self.tail + data)[-4000:]
        return bool(data)

    def end(self) -> int | None:
        """Send SIGTERM; return the exit code, or None if the program had to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + _END_S
        while self.process.poll() is None and time.monotonic() < end:
            self.drain(0.05)
        code = self.process.poll()
        if code is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the app, plot its memory, and return the exit code."""
    options = _options(arguments)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    columns, lines = map(int, options.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="mlxk-soak-") as home:
        temporary = Path(home) / "tmp"
        temporary.mkdir()
        argv = [sys.executable, "-m", "mlxk_tui.cli", "--demo"]
        terminal = Terminal(argv, _environment(home, temporary), (columns, lines))
        try:
            samples = _press_keys(terminal, options.minutes * 60, random.Random(options.seed))
            early = terminal.process.poll()
        finally:
            code = terminal.end()
        faults = _faults(early, code, terminal, Path(home), temporary)
    _write(out, samples)
    return _report(out, samples, faults)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the app with random keys and plot its memory.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", default="120x40", help="columns x lines at the start")
    parser.add_argument("--out", default=str(BUILD / "soak"))
    return parser.parse_args(arguments)


def _environment(home: str, temporary: Path) -> dict[str, str]:
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "MLXK"))
    }
    return {
        **inherited,
        "HOME": home,
        "TMPDIR": str(temporary),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
    }


def _press_keys(terminal: Terminal, seconds: float, chance: random.Random) -> list[Sample]:
    """Press keys until the time is up or the program has exited; return the memory samples."""
    samples: list[Sample] = []
    begin = time.monotonic()
    due = begin + _SAMPLE_S
    keys = 0
    while terminal.drain(2.0) and time.monotonic() < begin + _SAMPLE_S:
        pass
    while terminal.process.poll() is None and time.monotonic() < begin + seconds:
        for key in _burst(chance, terminal):
            terminal.press(key)
            keys += 1
        if time.monotonic() >= due:
            due = time.monotonic() + _SAMPLE_S
            sample = _measured(terminal.process.pid, time.monotonic() - begin, keys)
            if sample is not None:
                samples.append(sample)
                if len(samples) % 12 == 0:
                    print(
                        f"{sample.seconds / 60:5.1f} min  {keys:6d} keys  {sample.app / 1e6:6.1f} MB",
                        flush=True,
                    )
    return samples


def _burst(chance: random.Random, terminal: Terminal) -> list[str]:
    """Return a few keys, similar to those of a user."""
    kind = chance.choices(
        ("move", "letter", "pane", "palette", "words", "ask", "click", "resize", "leave"),
        (40, 22, 10, 4, 5, 2, 4, 2, 11),
    )[0]
    if kind == "move":
        return chance.choices([*_ARROWS, *"jkgG", "\t", "\x1b[Z"], k=chance.randint(1, 6))
    if kind == "letter":
        return [chance.choice(_LETTERS)]
    if kind == "pane":
        return [chance.choice(_PANES)]
    if kind == "palette":
        return ["\x10", *chance.choice(("th", "chat", "ti", "serv")), _ESCAPE, _ESCAPE]
    if kind == "words":
        return ["/", *chance.choice(_WORDS), chance.choice((_ENTER, _ESCAPE)), _ESCAPE]
    if kind == "ask":
        return [_PANES[3], *chance.choice(_WORDS), _ENTER]
    if kind == "click":
        at = f"{chance.randint(1, 60)};{chance.randint(1, 18)}"
        return [f"\x1b[<0;{at}M", f"\x1b[<0;{at}m"]
    if kind == "resize":
        terminal.resize(*chance.choice(_SIZES))
        return ["\x1b[A"]
    return [_ESCAPE, _ESCAPE]


def _measured(pid: int, seconds: float, keys: int) -> Sample | None:
    try:
        app = psutil.Process(pid)
        children = app.children(recursive=True)
        size = _memory(app)
    except psutil.Error:
        return None
    return Sample(seconds, keys, size, sum(map(_memory_if_running, children)))


def _memory(process: psutil.Process) -> int:
    about = process.memory_full_info()
    return int(getattr(about, "uss", about.rss))


def _memory_if_running(process: psutil.Process) -> int:
    try:
        return _memory(process)
    except psutil.Error:  # it ended meanwhile
        return 0


def _faults(
    early: int | None, code: int | None, terminal: Terminal, home: Path, temporary: Path
) -> list[str]:
    faults = []
    if early is not None:
        faults.append(f"the app exited early (status {early}):\n{terminal.tail.decode(errors='replace')}")
    elif code is None:
        faults.append(f"the app did not exit within {_END_S:g} s after SIGTERM")
    if reports := [path for path in home.rglob("crash.log") if path.stat().st_size]:
        faults.append(f"the app wrote a crash report:\n{reports[0].read_text(errors='replace')[-3000:]}")
    names = sorted(path.name for path in temporary.iterdir())
    if left := [name for name in names if name != _MLX and not _COMPILING.fullmatch(name)]:
        faults.append(f"the app left {', '.join(left)} in the temporary directory")
    return faults


def _growth(samples: Sequence[Sample]) -> float:
    """Return the growth in bytes per minute: the median of the slopes between all pairs of samples."""
    slopes = [
        (later.app - sample.app) / (later.seconds - sample.seconds) * 60
        for place, sample in enumerate(samples)
        for later in samples[place + 1 :]
    ]
    return statistics.median(slopes) if slopes else 0.0


def _report(out: Path, samples: Sequence[Sample], faults: list[str]) -> int:
    if len(samples) < 6:
        faults.append("too few samples to measure the growth of memory")
    else:
        warm = samples[len(samples) // 3 :]
        growth = _growth(warm)
        print(_sparkline([sample.app for sample in samples]))
        first, ready, last = (sample.app / 1e6 for sample in (samples[0], warm[0], samples[-1]))
        print(
            f"{samples[-1].keys} keys: {first:.1f} MB at the start, {ready:.1f} MB warm, {last:.1f} MB at end"
        )
        print(f"{growth / 1e6:+.2f} MB per minute; {out / 'memory.svg'}")
        if growth > _MAX_GROWTH:
            faults.append(
                f"memory grows by {growth / 1e6:.2f} MB per minute; the limit is {_MAX_GROWTH / 1e6:g}"
            )
    for fault in faults:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if faults else 0


def _sparkline(values: Sequence[int], width: int = 72) -> str:
    step = -(-len(values) // width)
    shown = [max(values[at : at + step]) for at in range(0, len(values), step)]
    top = max(shown)
    return "".join(_BLOCKS[min(7, value * 8 // (top + 1))] for value in shown)


def _write(out: Path, samples: Sequence[Sample]) -> None:
    with (out / "memory.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("seconds", "keys", "app_bytes", "children_bytes"))
        table.writerows((f"{s.seconds:.1f}", s.keys, s.app, s.children) for s in samples)
    (out / "memory.svg").write_text(_plot(samples))


def _plot(samples: Sequence[Sample]) -> str:
    """Return a plot of memory over time as SVG."""
    wide, high, left, bottom = 900, 360, 70, 40
    length = max([sample.seconds for sample in samples], default=1.0)
    top = max([sample.app for sample in samples], default=1) * 1.1
    across, up = wide - left - 20, high - bottom - 20
    points = " ".join(
        f"{left + sample.seconds / length * across:.1f},{high - bottom - sample.app / top * up:.1f}"
        for sample in samples
    )
    marks = []
    for part in range(5):
        y, x = high - bottom - part / 4 * up, left + part / 4 * across
        size, minutes = f"{top * part / 4 / 1e6:.0f} MB", f"{length * part / 240:.1f} min"
        marks.append(f'<line x1="{left}" y1="{y:.1f}" x2="{wide - 20}" y2="{y:.1f}" stroke="#ddd"/>')
        marks.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{size}</text>')
        marks.append(f'<text x="{x:.1f}" y="{high - bottom + 20}" text-anchor="middle">{minutes}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(marks)}'
        f'<polyline points="{points}" fill="none" stroke="#2b6cb0" stroke-width="2"/></svg>\n'
    )


if __name__ == "__main__":
    raise SystemExit(main())
