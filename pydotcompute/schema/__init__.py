"""From a message class to everything that is derived from it.

`model` reads a dataclass into small typed nodes, once; each of the other modules walks those nodes:
`door` checks values, `descriptors` makes protobuf types, `codec` turns instances into bytes and back (small ones by way
of `flat`), `json_body` reads people's JSON, `sample` writes example JSON, and `render` writes `.proto` source. Only
`descriptors`, `codec`, `flat`, `json_body` and `render` need protobuf.
"""
