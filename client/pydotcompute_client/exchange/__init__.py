"""The client's side of the exchange lane: a session with a kernel, in frames of many messages."""
