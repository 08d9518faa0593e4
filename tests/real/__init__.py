"""Answers of real models; `make models` fetches them."""
