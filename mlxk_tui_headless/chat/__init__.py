"""Running a model from the command line: a single answer or a conversation."""
