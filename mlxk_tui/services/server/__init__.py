"""Switching, configuring and measuring the server."""
