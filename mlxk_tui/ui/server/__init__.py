"""The Server pane."""
