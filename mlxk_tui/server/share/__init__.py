"""The HTTP server of `mlxk-headless share`: the cache, read-only, with the API of the Hugging Face Hub."""
