"""The Health pane."""
