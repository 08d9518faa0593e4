"""Key bindings of the Server pane, the same on every screen that shows a part of it."""

from __future__ import annotations

from textual.binding import Binding

SWITCH = Binding("s", "switch", "On/off", id="server.switch", tooltip="Turn the server on or off")
SETUP = Binding("e", "setup", "Settings", id="server.setup", tooltip="Set host, port and CORS origins")
MODEL = Binding(
    "m",
    "model",
    "Model",
    id="server.model",
    tooltip="Load a model, also for requests that name none",
)
UNLOAD = Binding("u", "unload", "Unload", show=False, id="server.unload", tooltip="Unload the model")
CONNECT = Binding(
    "i", "connect", "Connect", id="server.connect", tooltip="Show how to connect other programs"
)
ADDRESS = Binding("y", "copy_address", "Copy URL", id="server.copy_address", tooltip="Copy the base URL")
NEW_KEY = Binding("n", "new_key", "New key", id="server.new_key", tooltip="Create an API key")
DROP_KEY = Binding(
    "d", "drop_key", "Delete key", show=False, id="server.delete_key", tooltip="Delete the selected API key"
)
REVEAL = Binding(
    "v", "reveal", "Show keys", show=False, id="server.reveal", tooltip="Show or hide the API keys"
)
COPY_KEY = Binding(
    "Y", "copy_key", "Copy key", show=False, id="server.copy_key", tooltip="Copy the selected API key"
)
COPY = Binding(
    "c",
    "copy",
    "Copy",
    show=False,
    id="server.copy",
    tooltip="Copy the snippet, or the request's error and id",
)
FREE_PORT = Binding(
    "f",
    "free_port",
    "Free port",
    show=False,
    id="server.free_port",
    tooltip="Use the next free port",
)
CLEAR = Binding(
    "x",
    "clear",
    "Clear",
    show=False,
    id="server.clear",
    tooltip="Remove finished requests from the list",
)
LEFT = Binding("left,h", "tab(-1)", "Tab left", show=False, id="server.previous_tab")
RIGHT = Binding("right,l", "tab(1)", "Tab right", show=False, id="server.next_tab")
