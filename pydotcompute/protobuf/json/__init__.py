"""Messages as JSON, as people type and read them."""
