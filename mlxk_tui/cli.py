"""The `mlxk-tui` command: options, terminal check, then the app. Textual is imported only when it opens."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from mlxk_tui import __version__

EXIT_USAGE = 2
"""Exit status when the program cannot start as it was called."""
WEB_PORT = 8010
"""Where --web listens; the server that the app can switch on has another port, so that both can be on."""
_SETTINGS = ("cache_dir", "theme", "cpu_weights")
"""Options that are settings of the same name."""


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    made = argparse.ArgumentParser(
        prog="mlxk-tui",
        description="Full-screen workbench for MLX models in the Hugging Face cache.",
        epilog="For scripts there is mlxk-headless. Keys: press ? inside.",
    )
    made.add_argument("--version", action="version", version=f"mlxk-tui {__version__}")
    made.add_argument(
        "--demo", action="store_true", help="open on a built-in sample; nothing of yours is touched"
    )
    made.add_argument("--cache-dir", metavar="DIR", help="hub cache folder (the one that holds models--*)")
    made.add_argument("--theme", metavar="NAME", help="mlxk-dark, mlxk-light, ansi-dark, ansi-light, …")
    made.add_argument(
        "--cpu-weights",
        metavar="auto|stored|float32",
        help="how weights are held where there is no GPU (default auto: float32 where it fits)",
    )
    made.add_argument("--web", action="store_true", help="serve the app to a browser on this machine")
    made.add_argument(
        "--web-port",
        metavar="PORT",
        type=_port,
        default=WEB_PORT,
        help=f"port for --web (default {WEB_PORT})",
    )
    return made


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return port


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.web:
        return _serve(arguments)
    # textual-serve runs this program without a terminal and speaks with it over pipes.
    if "TEXTUAL_DRIVER" not in os.environ and not _at_terminal():
        return _refuse(
            "this needs a terminal. For scripts use mlxk-headless, such as: mlxk-headless list --json"
        )
    if os.environ.get("TERM") == "dumb":
        return _refuse("this terminal (TERM=dumb) cannot show a full screen. Use mlxk-headless here.")
    return _open(arguments)


def _at_terminal() -> bool:
    """Tell whether all three streams are a terminal; Textual draws on stderr."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _refuse(text: str) -> int:
    sys.stderr.write(f"mlxk-tui: {text}\n")
    return EXIT_USAGE


def _open(arguments: argparse.Namespace) -> int:
    import gc

    gc.disable()  # until the first models are drawn: what is made until then stays, a tenth of the start
    # pydantic would read the entry points of every installed package to look for plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from mlxk_tui import settings  # --version and --help do without
    from mlxk_tui.config_file import ConfigError

    try:
        loaded = settings.load({name: getattr(arguments, name) for name in _SETTINGS})
    except ConfigError as error:
        return _refuse(str(error))
    from mlxk_tui.app import MlxkApp

    with ExitStack() as stack:
        label, state = "hub", None
        if arguments.demo:
            from mlxk_tui.demo.session import DemoSession

            demo = stack.enter_context(DemoSession())
            loaded = settings.for_demo(loaded, demo.home)
            cache, label, state = demo.cache, "demo", demo.state
        else:
            cache = settings.cache_for(loaded, os.environ)
        # The scan runs in threads of this process: with Python's 5 ms a key would wait for it noticeably.
        sys.setswitchinterval(0.0005)
        app = MlxkApp(
            loaded,
            cache,
            label=label,
            remember=not arguments.demo,
            state=state,
            temporary=arguments.demo,
        )
        app.run()
    status = app.return_code or 0
    if getattr(app._driver, "is_stuck", False):  # its writer waits for the terminal, and Python for that
        os._exit(status)
    return status


def _serve(arguments: argparse.Namespace) -> int:
    try:
        from mlxk_tui.web import LocalServer  # textual-serve is an optional package
    except ImportError:
        return _refuse("--web needs textual-serve, which is not installed. Run: pip install 'mlxk-tui[web]'")
    command = [sys.executable, "-m", "mlxk_tui"]
    command += ["--demo"] if arguments.demo else []
    for name in _SETTINGS:
        if value := getattr(arguments, name):
            command += [f"--{name.replace('_', '-')}", value]
    # textual-serve hands the command to a shell and has no login: quoted, and on loopback only.
    try:
        LocalServer(shlex.join(command), arguments.web_port).serve()
    except OSError as error:
        return _refuse(
            f"port {arguments.web_port} cannot be used: {error.strerror}. Give another: --web-port PORT"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
