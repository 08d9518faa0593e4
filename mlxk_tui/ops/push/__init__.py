"""Pushes a folder to the hub: determines the changes, then uploads them."""
