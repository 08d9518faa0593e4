"""The worker process as its parent sees it: started, spoken to, watched, ended."""
