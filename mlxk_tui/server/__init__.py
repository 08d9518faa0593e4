"""The HTTP server with OpenAI- and Anthropic-compatible APIs, used by the app and `mlxk-headless serve`."""
