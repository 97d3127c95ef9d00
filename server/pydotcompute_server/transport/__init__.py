"""Who can reach the daemon: its address, TLS, and the certificates."""
