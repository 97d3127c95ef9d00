"""The steps, the error handling and the answers that all gRPC services share."""
