"""A gRPC service for each kernel type."""
