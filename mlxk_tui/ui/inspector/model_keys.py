"""The keys that act on models, the same on every screen that shows some."""

from __future__ import annotations

from textual.binding import Binding

VERIFY = Binding(
    "v", "verify", "Verify", id="models.verify", tooltip="Read every byte and compare it with its checksum"
)
PULL = Binding(
    "p",
    "pull",
    "Pull",
    id="models.pull",
    tooltip="Fetch what is missing, broken, or newer on the hub; in an empty cache, choose a first model",
)
PUSH = Binding(
    "P",
    "push",
    "Push a folder",
    show=False,
    id="models.push",
    tooltip="Push a folder of yours to a private repo of the hub",
)
CHAT = Binding("c", "chat", "Chat", id="models.chat", tooltip="Begin a new chat with the model")
CLONE = Binding("C", "clone", "Clone", id="models.clone", tooltip="Copy the model into a folder of your own")
DELETE = Binding(
    "d", "delete", "Delete", id="models.delete", tooltip="Delete the model from the cache, after a question"
)
COPY_NAME = Binding(
    "y", "copy_name", "Copy name", show=False, id="models.copy_name", tooltip="Copy the model's name"
)
COPY_PATH = Binding(
    "Y", "copy_path", "Copy path", show=False, id="models.copy_path", tooltip="Copy the folder of its files"
)
PRUNE = Binding(
    "x", "prune", "Prune", id="cache.prune", tooltip="Delete what downloads and updates left behind"
)
RESCAN = Binding("r", "rescan", "Rescan", show=False, id="cache.rescan", tooltip="Read the whole cache again")
