"""Messages from one pane to another, which the app handles: panes do not import each other."""

from __future__ import annotations

from textual.message import Message


class ChatRequested(Message):
    """A chat with a model was requested.

    Args:
        model: full name of the model.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model
