"""How models write reasoning and tool calls. No MLX."""
