"""What one pane asks of another, through the app: neither knows the other."""

from __future__ import annotations

from textual.message import Message


class ChatRequested(Message):
    """Somebody wants to chat with a model.

    Args:
        model: its full name.
    """

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model
