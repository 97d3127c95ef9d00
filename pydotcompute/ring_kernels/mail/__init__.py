"""The mail of a kernel: its mailboxes, its callers and their replies, its dead letters, its counters."""
