"""Messages as protobuf: types, bytes, JSON and `.proto` files. It knows no runtime and no gRPC."""
