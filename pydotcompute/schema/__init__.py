"""From a message class to everything that is derived from it.

`model` reads a dataclass into small typed nodes, once; each of the other modules walks those nodes:
`door` checks values, `descriptors` makes protobuf types, `services` makes the services over them, `codec` turns
instances into bytes and back (small ones by way of `flat`, arrays by way of `tensors`), `json_body` reads people's
JSON, `sample` writes example JSON, `render` writes `.proto` source, which `export` puts into files, and `breaking`
compares two states of it. `lock` holds the numbers of fields, and `arrays` is what all of them know of NumPy.
"""
