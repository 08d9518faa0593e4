"""Widgets that several panes share; they know no pane."""
