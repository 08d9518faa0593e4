"""Key bindings for models, the same on every screen that shows models."""

from __future__ import annotations

from textual.binding import Binding

VERIFY = Binding(
    "v", "verify", "Verify", id="models.verify", tooltip="Verify the checksums (reads every byte)"
)
PULL = Binding(
    "p",
    "pull",
    "Pull",
    id="models.pull",
    tooltip="Download missing, broken or newer files; in an empty cache, find a first model",
)
CHECK_UPDATES = Binding(
    "U",
    "check_updates",
    "Check for updates",
    show=False,
    id="models.check_updates",
    tooltip="Ask the hub which models have a newer commit",
)
PUSH = Binding(
    "P",
    "push",
    "Push a folder",
    show=False,
    id="models.push",
    tooltip="Push a local folder to a private repo on the hub",
)
CHAT = Binding("c", "chat", "Chat", id="models.chat", tooltip="Start a chat with the model")
CLONE = Binding("C", "clone", "Clone", id="models.clone", tooltip="Copy the model to a local folder")
DELETE = Binding(
    "d", "delete", "Delete", id="models.delete", tooltip="Delete the model from the cache (asks first)"
)
COPY_NAME = Binding(
    "y", "copy_name", "Copy name", show=False, id="models.copy_name", tooltip="Copy the model's name"
)
COPY_PATH = Binding(
    "Y",
    "copy_path",
    "Copy path",
    show=False,
    id="models.copy_path",
    tooltip="Copy the path of the model's files",
)
PRUNE = Binding(
    "x", "prune", "Prune", id="cache.prune", tooltip="Delete the leftovers of downloads and updates"
)
RESCAN = Binding("r", "rescan", "Rescan", show=False, id="cache.rescan", tooltip="Scan the whole cache again")
