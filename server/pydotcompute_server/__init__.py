"""The daemon: the ring-kernel runtime behind gRPC."""
