"""The larger commands, one per module."""
