"""A local hub: an HTTP server with the API of the Hugging Face Hub, for tests, benchmarks and the demo.

`LocalHub` runs in a thread, `HubProcess` in a process, and `HubOnDemand` in a process that starts with the
first connection. Names are imported on first use, so that starting the process doesn't import the server.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxk_tui.demo.hub.blobs import Content, Generated, StoredBlob
    from mlxk_tui.demo.hub.faults import Fault, Faults
    from mlxk_tui.demo.hub.log import HubLog, LoggedRequest
    from mlxk_tui.demo.hub.on_demand import HubOnDemand
    from mlxk_tui.demo.hub.process import HubProcess
    from mlxk_tui.demo.hub.seeds import add_folder, add_folders, seed_demo
    from mlxk_tui.demo.hub.server import LocalHub
    from mlxk_tui.demo.hub.store.users import User

__all__ = [
    "Content",
    "Fault",
    "Faults",
    "Generated",
    "HubLog",
    "HubOnDemand",
    "HubProcess",
    "LocalHub",
    "LoggedRequest",
    "StoredBlob",
    "User",
    "add_folder",
    "add_folders",
    "seed_demo",
]

_MODULES = {
    "StoredBlob": "blobs",
    "Content": "blobs",
    "Generated": "blobs",
    "Fault": "faults",
    "Faults": "faults",
    "LoggedRequest": "log",
    "HubLog": "log",
    "HubOnDemand": "on_demand",
    "HubProcess": "process",
    "add_folder": "seeds",
    "add_folders": "seeds",
    "seed_demo": "seeds",
    "LocalHub": "server",
    "User": "store.users",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
