"""Bounds of what clients and kernels can cost: memory, time, connections, and what each one has of a table."""
