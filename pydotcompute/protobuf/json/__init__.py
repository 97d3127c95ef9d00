"""Messages as JSON that people type and read."""
