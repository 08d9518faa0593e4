"""The messages of the open chat, rendered line by line, also while an answer streams."""
