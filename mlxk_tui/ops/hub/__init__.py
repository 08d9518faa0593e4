"""The only package that talks to huggingface_hub."""
