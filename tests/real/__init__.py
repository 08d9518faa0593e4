"""Answers of real models, which `make models` downloads."""
