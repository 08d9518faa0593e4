"""The Textual app: a package a pane, the shell around them, and widgets that several share."""
