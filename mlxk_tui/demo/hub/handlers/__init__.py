"""The routes of the local hub."""
