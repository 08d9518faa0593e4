"""The `mlxk-tui` command: parses options, checks the terminal, opens the app. Imports Textual only then."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from mlxk_tui import __version__

EXIT_USAGE = 2
"""Exit status if the options or the terminal do not allow the app to start."""
WEB_PORT = 8010
"""Default port of --web; differs from the default port of the API server, so that both can run."""
_SETTINGS = ("cache_dir", "theme", "cpu_weights")
"""Options that override the setting of the same name."""


def parser() -> argparse.ArgumentParser:
    """Return the argument parser."""
    result = argparse.ArgumentParser(
        prog="mlxk-tui",
        description="Full-screen workbench for the MLX models in the Hugging Face cache.",
        epilog="Press ? in the app for help. For scripts, use mlxk-headless.",
    )
    result.add_argument("--version", action="version", version=f"mlxk-tui {__version__}")
    result.add_argument(
        "--demo", action="store_true", help="open a built-in sample cache; your own cache is not touched"
    )
    result.add_argument(
        "--cache-dir", metavar="DIR", help="hub cache folder (the one that contains models--*)"
    )
    result.add_argument("--theme", metavar="NAME", help="mlxk-dark, mlxk-light, ansi-dark, ansi-light, …")
    result.add_argument(
        "--cpu-weights",
        metavar="auto|stored|float32",
        help="format of weights without a GPU (default auto: float32 if it fits)",
    )
    result.add_argument("--web", action="store_true", help="serve the app to a browser on this machine")
    result.add_argument(
        "--web-port",
        metavar="PORT",
        type=_port,
        default=WEB_PORT,
        help=f"port for --web (default {WEB_PORT})",
    )
    return result


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return port


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = parser().parse_args(argv)
    if arguments.web:
        return _serve(arguments)
    # textual-serve runs this program without a terminal and communicates over pipes.
    if "TEXTUAL_DRIVER" not in os.environ and not _at_terminal():
        return _refuse(
            "the app needs a terminal. For scripts, use mlxk-headless, for example: mlxk-headless list --json"
        )
    if os.environ.get("TERM") == "dumb":
        return _refuse("this terminal (TERM=dumb) has no full-screen mode. Use mlxk-headless instead.")
    return _open(arguments)


def _at_terminal() -> bool:
    """Return whether all three streams are terminals; Textual draws on stderr."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))


def _refuse(text: str) -> int:
    sys.stderr.write(f"mlxk-tui: {text}\n")
    return EXIT_USAGE


def _open(arguments: argparse.Namespace) -> int:
    import gc

    gc.disable()  # enabled again once the first models are drawn; saves a tenth of the startup time
    # Otherwise pydantic reads the entry points of every installed package to find plugins.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from mlxk_tui import settings  # not needed for --version and --help
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
        # The scan runs in threads of this process; with Python's default of 5 ms it would delay key presses.
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
    if getattr(
        app._driver, "is_stuck", False
    ):  # the terminal's writer thread is blocked, and Python would wait for it
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
    # textual-serve passes the command to a shell and has no login: quote it, and listen on loopback only.
    try:
        LocalServer(shlex.join(command), arguments.web_port).serve()
    except OSError as error:
        return _refuse(
            f"port {arguments.web_port} cannot be used: {error.strerror}. Choose another: --web-port PORT"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
