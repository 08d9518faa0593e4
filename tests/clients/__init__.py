"""Other people's programs, unmodified, as clients of the server."""
