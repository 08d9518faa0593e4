"""Starting, stopping, configuring and measuring the server."""
