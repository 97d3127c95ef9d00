"""Exports the types of a daemon as `.proto` files."""
