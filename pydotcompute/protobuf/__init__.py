"""Messages as protobuf: types, bytes, JSON and `.proto` files. It knows no runtime and no gRPC.

`descriptors` makes protobuf types of message classes, `pool` holds them, `services` adds the services over them,
`compatible` compares them with the other side's, and `classes` makes message classes of them. `codec` turns instances
into bytes and back, by way of code that `compiler` generates and that calls `runtime_helpers`; `flat` is the short way
for small messages, and `tensors` that of arrays. `json` has messages as people type and read them, and `export` has the
types as `.proto` files.
"""
