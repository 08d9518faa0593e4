"""The keys of the Server pane, the same on every screen that shows a part of it."""

from __future__ import annotations

from textual.binding import Binding

SWITCH = Binding("s", "switch", "On/off", id="server.switch", tooltip="Switch the server on or off")
SETUP = Binding(
    "e", "setup", "Set up", id="server.setup", tooltip="Set host, port and the web pages that may call"
)
MODEL = Binding(
    "m",
    "model",
    "Model",
    id="server.model",
    tooltip="Load a model, which also answers requests that name none",
)
UNLOAD = Binding("u", "unload", "Unload", show=False, id="server.unload", tooltip="Free the model's memory")
CONNECT = Binding(
    "i", "connect", "Connect", id="server.connect", tooltip="Show how other programs are pointed here"
)
ADDRESS = Binding("y", "copy_address", "Copy URL", id="server.copy_address", tooltip="Copy the address")
NEW_KEY = Binding("n", "new_key", "New key", id="server.new_key", tooltip="Make an API key")
DROP_KEY = Binding(
    "d", "drop_key", "Delete key", show=False, id="server.delete_key", tooltip="Delete the selected API key"
)
REVEAL = Binding(
    "v", "reveal", "Show keys", show=False, id="server.reveal", tooltip="Show the API keys, or hide them"
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
    tooltip="Take the next port that is free",
)
CLEAR = Binding(
    "x",
    "clear",
    "Clear",
    show=False,
    id="server.clear",
    tooltip="Take requests that have ended out of the list",
)
LEFT = Binding("left,h", "tab(-1)", "Tab left", show=False, id="server.previous_tab")
RIGHT = Binding("right,l", "tab(1)", "Tab right", show=False, id="server.next_tab")
