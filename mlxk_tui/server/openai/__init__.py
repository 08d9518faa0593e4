"""The routes of OpenAI's API, and vLLM's tokenizing routes."""
