"""The lane for people: one message for each call."""
