"""Shared by all operations: errors, text, threads, files, child processes."""
