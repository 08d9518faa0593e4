"""The worker process, `python -m mlxk_tui.engine.worker`: commands on stdin, messages on stdout.

Each message is one line of JSON, defined in `protocol.py`. Logs go to stderr. The process ends when stdin
is closed, and with the parent whose process id is its argument.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib.metadata import version

from mlxk_tui.ops.core.lifeline import die_with_parent

_MISSING = (
    "MLX cannot be used here ({reason}), so no model can run. It needs Apple silicon or Linux, "
    "and the packages mlx and mlx-lm."
)
_TRIALS_S = 10.0
"""Expected duration of the trials of all BLAS libraries, in seconds."""


def main() -> int:
    """Run until stdin is closed; returns an exit status only if MLX cannot be imported or fails."""
    die_with_parent(sys.argv[1:])  # before slow imports
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C in the terminal
    from mlxk_tui.engine.inference.prompts.tokenizing import process as tokenizer_process

    root = tokenizer_process.start()  # forks, so before there is a second thread
    from mlxk_tui.engine.inference.channel import Inbox, Outbox, redirect_stdout, start_reader
    from mlxk_tui.engine.inference.heartbeat import HeartbeatReporter
    from mlxk_tui.engine.inference.prompts.tokenizing.pool import TokenizerPool
    from mlxk_tui.engine.protocol import Ready, RequestFailed
    from mlxk_tui.ops.core.errors import ErrorType

    outbox = Outbox(redirect_stdout())
    inbox, reporter = Inbox(), HeartbeatReporter()
    reporter.start(outbox.send)
    stdin = os.fdopen(os.dup(0), "rb")  # a copy: mlx-lm's olmo calls `exit()`, which closes sys.stdin
    start_reader(stdin, inbox, reporter)
    try:
        import mlx.core as mx  # 2 s of imports, while the threads above send heartbeats

        from mlxk_tui.engine.inference.blas.installation import install_blas

        reporter.begin_step(_TRIALS_S, reads_files=True)  # subprocesses test the libraries one after another
        installed = install_blas()  # before mlx-lm: no matrix product may run meanwhile
        reporter.begin_step(reads_files=True)
        from mlxk_tui.engine.inference.loop import InferenceLoop
    except Exception as error:  # noqa: BLE001 - a broken installation raises anything
        traceback.print_exc()
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(": ")
        outbox.send(RequestFailed(0, ErrorType.DEPENDENCY_MISSING.value, _MISSING.format(reason=reason)))
        return 1
    mx.random.seed(int.from_bytes(os.urandom(4), "little"))
    device = "gpu" if mx.default_device() == mx.gpu else "cpu"
    outbox.send(Ready(mlx=version("mlx"), mlx_lm=version("mlx-lm"), device=device, blas=installed.blas))
    try:
        InferenceLoop(inbox, outbox, reporter, TokenizerPool(root), installed).run()
    except Exception as error:  # noqa: BLE001 - MLX may raise anything; all running requests are lost
        traceback.print_exc()
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        outbox.send(
            RequestFailed(0, ErrorType.ENGINE_CRASHED.value, f"The inference process failed: {reason}")
        )
    return 1


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # immediately: on Metal, running threads may crash while the interpreter shuts down
