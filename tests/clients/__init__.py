"""Other programs, unmodified, as clients of the server."""
