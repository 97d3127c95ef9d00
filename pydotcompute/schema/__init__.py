"""From a message class to everything that is derived from it.

`model` reads a dataclass into small typed nodes, once; each of the other modules walks those nodes:
`door` checks values, `descriptors` makes protobuf types, `codec` turns instances into bytes and back (small ones by way
of `flat`, arrays by way of `tensors`), `sample` writes example JSON, and `render` writes `.proto` source; `arrays` is
what all of them know of NumPy. Only `descriptors`, `codec`, `flat`, `sample` and `render` need protobuf.
"""
