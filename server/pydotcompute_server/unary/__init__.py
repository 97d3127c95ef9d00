"""The lane for people: one message a call."""
