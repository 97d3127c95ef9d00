"""The user's function: how it runs, and what it sees of its kernel."""
