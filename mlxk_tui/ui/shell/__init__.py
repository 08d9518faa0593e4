"""The shell around every pane: header, tabs, footer, tasks, keys, themes."""
