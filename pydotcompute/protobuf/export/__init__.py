"""The types of a daemon as `.proto` files."""
