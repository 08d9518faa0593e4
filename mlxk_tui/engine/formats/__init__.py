"""Parsers of reasoning and tool calls in model output. No MLX."""
