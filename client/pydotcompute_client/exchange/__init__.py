"""The client's end of a conversation with a kernel."""
