"""`run` with the tiny real model: one answer, a conversation, pipes, Ctrl-C, and errors."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mlxk_tui.demo import tiny_model
from mlxk_tui.ops.health.machine import may_have_gpu
from mlxk_tui_headless.chat.answer import INTERRUPTED
from tests.headless.running import PROGRAM, Result, call, environment, headless
from tests.support.hf_cache import HfCache, model_files
from tests.support.waiting import PATIENCE_S
from tests.ui.test_chat_interruptions import HUGE, add_huge

pytest.importorskip("mlx", reason="MLX is not installed on this platform")

ASK = tiny_model.SUGGESTIONS[0]
LONG = "Give me a tour of the app"
FAST = {"MLX_DISABLE_COMPILE": "1"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub folder with the tiny model."""
    hub = tmp_path_factory.mktemp("models")
    tiny_model.install(hub)
    return hub


@pytest.fixture(scope="module")
def answered(models: Path) -> Result:
    """One answer as JSON."""
    return headless("run", "tiny-demo", ASK, "--temperature", "0", "--json", hub=models, env=FAST)


def test_json_has_the_answer_and_exact_token_counts(answered: Result) -> None:
    data = answered.envelope["data"]
    assert answered.status == 0
    assert data["model"] == tiny_model.NAME
    assert data["prompt"] == ASK
    assert data["finish_reason"] == "stop"
    assert data["usage"]["completion_tokens"] == data["tokens_generated"] > 3
    assert data["usage"]["total_tokens"] == data["usage"]["prompt_tokens"] + data["tokens_generated"]
    assert data["generation_time_s"] >= data["timings"]["load_s"] > 0


@pytest.mark.slow
def test_stream_prints_only_the_same_answer(answered: Result, models: Path) -> None:
    streamed = headless("run", "tiny-demo", "-", "--temperature", "0", hub=models, env=FAST, stdin=ASK)
    assert streamed.status == 0
    assert streamed.stdout == answered.envelope["data"]["response"].rstrip("\n") + "\n"
    assert streamed.stderr == ""


@pytest.mark.slow
def test_each_line_of_a_pipe_is_answered_until_it_ends(answered: Result, models: Path) -> None:
    arguments = ("run", "tiny-demo", "--temperature", "0", "--max-tokens", "200")
    lines = headless(*arguments, hub=models, env=FAST, stdin=f"{ASK}\n\nhi\nexit\nnever asked\n")
    assert lines.status == 0
    first, _, second = lines.stdout.partition(answered.envelope["data"]["response"].rstrip("\n") + "\n")
    assert first == ""
    assert second.strip()


def test_empty_stdin_exits_at_once(models: Path) -> None:
    silent = headless("run", "tiny-demo", hub=models)
    assert (silent.status, silent.stdout) == (0, "")
    assert "stdin was empty" in silent.stderr


@pytest.mark.slow
def test_prompt_longer_than_the_context_is_rejected_with_token_counts(models: Path) -> None:
    refused = headless("run", "tiny-demo", "-", "--json", hub=models, env=FAST, stdin="word " * 200_000)
    assert refused.status == 1
    assert refused.error["type"] == "context_length_exceeded"
    assert any(character.isdigit() for character in refused.error["message"])


@pytest.mark.slow
def test_invalid_utf8_prompt_is_answered(models: Path) -> None:
    arguments = (b"run", b"tiny-demo", b"caf\xe9 \xff?", b"--max-tokens", b"3", b"--json")
    odd = headless(*arguments, hub=models, env=FAST)
    assert odd.status == 0
    assert odd.envelope["data"]["prompt"] == "caf\ufffd \ufffd?"
    assert odd.envelope["data"]["finish_reason"] in {"length", "stop"}


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("run", "no-such-model", "hi"), "model_not_found", "no-such-model"),
        (("run", "tiny-demo", "  "), "validation_error", "empty"),
        (("run", "tiny-demo"), "validation_error", "PROMPT"),
        (("run", "broken", "hi"), "model_not_runnable", "broken"),
        (("run", "tiny-demo", "hi", "--draft", "none-such"), "model_not_found", "none-such"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_requests_are_typed_errors(
    arguments: tuple[str, ...], error: str, text: str, hub: Path
) -> None:
    tiny_model.install(hub)
    files = model_files()
    files["model.safetensors"] = files["model.safetensors"][:100]
    HfCache(hub).repo("mlx-community/broken-4bit").add(files)
    refused = call(*arguments, "--json", hub=hub)
    assert refused.status == 1
    assert refused.error["type"] == error
    assert text in refused.error["message"]


@pytest.mark.slow
def test_invalid_sampling_value_is_rejected(models: Path) -> None:
    refused = headless("run", "tiny-demo", "hi", "--top-k", "-5", "--json", hub=models, env=FAST)
    assert refused.status == 1
    assert refused.error["type"] == "validation_error"
    assert "top_k" in refused.error["message"]


@pytest.mark.skipif(may_have_gpu(), reason="it is for machines without a GPU")
def test_float32_weights_that_do_not_fit_are_rejected_with_the_fix(hub: Path) -> None:
    add_huge(hub, tiny_model.folder(), int(psutil.virtual_memory().available * 0.7))
    refused = call("run", HUGE, "hi", "--cpu-weights", "float32", "--json", hub=hub)
    assert (refused.status, refused.error["type"]) == (1, "insufficient_memory")
    assert "of memory with float32 weights;" in refused.error["message"]
    assert "Use stored weights" in refused.error["message"]


def _start(*arguments: str, hub: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(hub, **FAST),
    )


def _workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
def test_closed_reader_ends_the_command_silently(models: Path) -> None:
    process = _start("run", "tiny-demo", LONG, "--temperature", "0", hub=models)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    workers = _workers(process)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=PATIENCE_S) in {0, 141}  # the whole answer may be in the pipe already
    assert errors == b""
    assert not psutil.wait_procs(workers, timeout=PATIENCE_S)[1]


@pytest.mark.slow
def test_ctrl_c_stops_the_answer_and_the_worker(models: Path) -> None:
    process = _start("run", "tiny-demo", LONG, "--temperature", "1.5", hub=models)
    assert process.stdout is not None
    begun = process.stdout.read(1)
    workers = _workers(process)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=PATIENCE_S)
    assert begun
    assert workers
    if process.returncode == 0:  # the answer was faster than the signal
        return
    assert process.returncode == 1
    assert (begun + rest).decode().endswith(f"{INTERRUPTED}\n")
    assert b"Stopped by the user" in errors
    assert not psutil.wait_procs(workers, timeout=PATIENCE_S)[1]


@pytest.mark.slow
def test_engine_crash_during_an_answer_is_reported_on_a_new_line(models: Path) -> None:
    process = _start("run", "tiny-demo", LONG, "--temperature", "1.5", hub=models)
    assert process.stdout is not None
    begun = process.stdout.read(1)
    workers = _workers(process)
    for worker in workers:
        worker.kill()
    rest, errors = process.communicate(timeout=PATIENCE_S)
    if process.returncode == 0:  # the answer was faster than the kill
        return
    assert (process.returncode, workers != []) == (1, True)
    assert (begun + rest).endswith(b"\n")
    assert b"killed" in errors
    assert not psutil.wait_procs(workers, timeout=PATIENCE_S)[1]


class Terminal:
    """The command in a pseudo-terminal."""

    def __init__(self, *arguments: str, hub: Path, home: Path) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:  # the child
            env = environment(hub, TERM="xterm", XDG_STATE_HOME=str(home), **FAST)
            os.execve(PROGRAM[0], [*PROGRAM, *arguments], env)
        self.seen = ""

    def until(self, holds: Callable[[str], bool], seconds: float = PATIENCE_S) -> str:
        """Read until the output since the last call satisfies the condition, and return it."""
        output, end = "", time.monotonic() + seconds
        while not holds(output):
            assert time.monotonic() < end, f"timeout; output: {output!r}"
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    output += os.read(self._master, 65536).decode(errors="replace").replace("\r\n", "\n")
                except OSError:  # Linux: the other side has closed
                    break
        self.seen += output
        return output

    def type(self, text: str) -> None:
        """Type text."""
        os.write(self._master, text.encode())

    def status(self) -> int:
        """Wait for the end and return the exit status."""
        self.until(lambda output: False) if self._open() else None
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def interrupt_prompt(self) -> None:
        """Press Ctrl-C at the prompt, repeatedly until the program exits.

        CPython's readline writes the prompt before it waits with `select`; a signal between the two is only
        noticed with the next signal or key.
        """
        end = time.monotonic() + PATIENCE_S
        while self._open() and time.monotonic() < end:
            self.type("\x03")
            with contextlib.suppress(AssertionError):
                self.until(lambda output: not self._open(), 1)

    def _open(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def close(self) -> None:
        """Close the terminal."""
        os.close(self._master)


@pytest.fixture
def terminal(models: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A conversation with the tiny model."""
    result = Terminal("run", "tiny-demo", "--temperature", "0", hub=models, home=tmp_path)
    yield result
    result.close()


def _asks(output: str) -> bool:
    return output.endswith(">>> ")


def test_conversation_at_a_terminal(terminal: Terminal, tmp_path: Path, answered: Result) -> None:
    assert "is ready" in terminal.until(_asks)
    [worker] = psutil.Process(terminal.pid).children()
    processes = [worker, *worker.children(recursive=True)]
    terminal.type(f"{ASK}\n")
    output = terminal.until(_asks)
    first_line = answered.envelope["data"]["response"].splitlines()[0]
    assert first_line in output
    terminal.type("/set temperature 9x\n")
    assert "must be a number" in terminal.until(_asks)
    terminal.type("/set seed 7\n")
    assert "seed 7" in terminal.until(_asks)
    terminal.type("/system Answer in one line.\n")
    assert "Answer in one line." in terminal.until(_asks)
    terminal.type("/nonsense\n")
    assert "Unknown command: /nonsense" in terminal.until(_asks)
    target = tmp_path / "talk.json"
    terminal.type(f"/save {target}\n")
    terminal.until(_asks)
    saved = json.loads(target.read_text())
    assert [message["role"] for message in saved["messages"]] == ["system", "user", "assistant"]
    assert saved["messages"][1]["content"] == ASK
    terminal.type(f"/save {target.with_suffix('.md')}\n")
    terminal.until(_asks)
    assert ASK in target.with_suffix(".md").read_text()
    terminal.type(f"{LONG}\n")
    terminal.until(lambda text: len(text) > len(LONG) + 40)
    terminal.type("\x03")
    terminal.until(_asks)
    terminal.type(f"{ASK}\n")  # an interrupt does not block the next answer
    assert len(terminal.until(_asks)) > len(ASK) + 20
    terminal.interrupt_prompt()  # at the prompt it exits
    assert terminal.status() == 0
    assert not psutil.wait_procs(processes, timeout=PATIENCE_S)[1]
    history = tmp_path / "mlxk-tui" / "run_history"
    assert ASK in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
    assert "Traceback" not in terminal.seen
