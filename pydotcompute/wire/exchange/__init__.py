"""The `Exchange` call, a conversation of a client with a kernel: its rules, without I/O, and its frames."""
