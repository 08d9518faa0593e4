"""Connections, bodies, events, and who may call."""
