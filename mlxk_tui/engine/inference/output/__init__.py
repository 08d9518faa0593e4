"""From tokens to what a client is told: text, reasoning, tool calls."""
