"""Message classes: `@message`, their constructors, the header, and ids."""
