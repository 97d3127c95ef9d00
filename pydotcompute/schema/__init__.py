"""The schema of a message class, read once from its annotations.

- `introspect` reads a dataclass into small typed `nodes`. All other code about a class works on these nodes.
- `check` refuses messages that do not fit their annotations. To do so, it uses three other modules: `fits` generates a
  fast test for each class, `normalize` converts numbers and arrays to the annotated types, and `explain` finds the
  mistake and its place.
- `lock` keeps the numbers of fields stable when a class changes.
- `arrays`, `dtypes` and `foreign_arrays` hold the knowledge about NumPy that the other modules share.

The package imports only the standard library and NumPy.
"""
