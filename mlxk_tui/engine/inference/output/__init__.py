"""Converts generated tokens to the deltas of a stream: text, reasoning, tool calls, log-probabilities."""
