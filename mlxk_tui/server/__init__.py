"""The OpenAI-compatible server over an engine; embedded in the app, or `mlxk-headless serve`."""
