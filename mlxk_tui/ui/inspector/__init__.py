"""Everything shown of one model and done with it, from whichever pane."""
