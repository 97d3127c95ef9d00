"""What a message class says, read once from its annotations.

`introspect` reads a dataclass into small typed `nodes`; everything that is derived from a class walks its nodes.
`check` refuses what does not fit the annotations: `fits` generates a test for each class, `normalize` makes numbers and
arrays those of the annotations, and `explain` finds what is wrong, and where. `lock` holds the numbers of fields.
`arrays`, `dtypes` and `foreign_arrays` are what all of them know of NumPy.

The package imports only the standard library and NumPy.
"""
