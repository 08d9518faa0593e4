"""The Hugging Face hub; the only package that uses huggingface_hub."""
