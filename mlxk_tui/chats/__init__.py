"""Chats that are kept: a SQLite store, search, export and import. Knows no screen."""
