"""Message classes: `@message`, the header fields, and ids."""
