"""Saved chats: a SQLite store, full-text search, export and import. Independent of the user interface."""
