"""`python -m mlxk_tui.demo.hub`: the local hub as a process of its own.

It prints one line of JSON with its addresses and ends when its stdin closes, on SIGTERM or on SIGINT.
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
    """Serve until the owner is gone."""
    parser = argparse.ArgumentParser(prog="python -m mlxk_tui.demo.hub", description="A hub on this machine.")
    parser.add_argument("--port", type=int, default=0, help="port of the hub; 0 for a free one")
    parser.add_argument("--socket", type=int, metavar="FD", help="a listening socket, in place of a port")
    parser.add_argument("--seed-demo", action="store_true", help="fill it for the demo")
    parser.add_argument("--folder", type=Path, help="serve every folder org/name below this one")
    parser.add_argument("--rate", type=float, help="bytes a second that a connection gets")
    options = parser.parse_args()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    listening = None if options.socket is None else socket.socket(fileno=options.socket)
    hub = LocalHub(port=options.port, listening=listening)
    hub.rate_per_connection = options.rate
    if options.seed_demo:  # before it listens: whoever waits in the socket's queue sees all of it
        seed_demo(hub)
    if options.folder is not None:
        add_folders(hub, options.folder)
    with hub:
        sys.stdout.write(json.dumps({"url": hub.url, "cdn_url": hub.cdn_url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        threading.Thread(target=_watch_stdin, args=(done,), daemon=True).start()
        done.wait()


def _watch_stdin(done: threading.Event) -> None:
    """Wait for the end of stdin: the owner closed it or is no more."""
    while os.read(0, 4096):
        pass
    done.set()


if __name__ == "__main__":
    main()
