"""Kernel types whose files another process imports: it describes them to the daemon, and the daemon runs none of it."""
