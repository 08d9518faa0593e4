"""What every operation stands on: errors, text, threads, files, child processes."""
