"""The process of the local hub: `python -m mlxk_tui.demo.hub`.

It prints its URLs as one line of JSON, and exits when stdin is closed, or on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from mlxk_tui.demo.hub.seeds import add_folders, seed_demo
from mlxk_tui.demo.hub.server import LocalHub


def main() -> None:
    """Serve until stdin is closed or a signal arrives."""
    parser = argparse.ArgumentParser(prog="python -m mlxk_tui.demo.hub", description="A local hub.")
    parser.add_argument("--port", type=int, default=0, help="port of the hub; 0 for any free port")
    parser.add_argument(
        "--socket", type=int, metavar="FD", help="a listening socket to use instead of a port"
    )
    parser.add_argument("--seed-demo", action="store_true", help="add the repos of the demo")
    parser.add_argument("--folder", type=Path, help="add every folder org/name in this folder as a repo")
    parser.add_argument("--rate", type=float, help="maximum bytes per second and connection")
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    listening = None if options.socket is None else socket.socket(fileno=options.socket)
    hub = LocalHub(port=options.port, listening=listening)
    hub.rate_per_connection = options.rate
    if options.seed_demo:  # before listening, so that waiting clients see all repos
        seed_demo(hub)
    if options.folder is not None:
        add_folders(hub, options.folder)
    with hub:
        sys.stdout.write(json.dumps({"url": hub.url, "cdn_url": hub.cdn_url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        threading.Thread(target=_watch_stdin, args=(done,), daemon=True).start()
        done.wait()


def _watch_stdin(done: threading.Event) -> None:
    """Wait until stdin is closed: by the owner, or because the owner has exited."""
    while os.read(0, 4096):
        pass
    done.set()


if __name__ == "__main__":
    main()
