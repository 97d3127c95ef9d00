"""Messages as protobuf: types, bytes, JSON and `.proto` files. It knows no runtime and no gRPC.

Types:

- `descriptors` makes protobuf types from message classes, by the `conventions`, and `pool` holds the types.
- `services` adds a gRPC service for a kernel type.
- `compatible` compares the types with those of the other side.
- `classes` makes message classes from protobuf types.
- `export` writes the types as `.proto` files.

Messages:

- `codec` turns instances into bytes and back. `compiler` generates its code, and that code calls `runtime_helpers`.
- `flat` is a faster way for small messages, and `tensors` for arrays, with `varints`.
- `json` reads and writes messages as JSON for people.
"""
