"""HTTP connections, request bodies, server-sent events and access control."""
