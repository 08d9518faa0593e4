"""The HTTP client of downloads: connections that can be aborted, proxies, requests for ranges."""
