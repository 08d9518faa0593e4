"""The messages of the open chat, drawn line by line, also while an answer is written."""
