"""Functions made from generated source, as `dataclasses` makes its constructors.

A generated function is straight lines of code for one class. Walking the nodes of the class on every call would cost
more than the work itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Source"]


class Source:
    """Source text under construction, together with the objects that it refers to by name.

    Args:
        title: stands in place of the file name in tracebacks.
        taken: names that `bind` and `fresh` must not make.
    """

    def __init__(self, title: str, taken: Iterable[str] = ()) -> None:
        self._title = title
        self._taken = frozenset(taken)
        self._lines: list[str] = []
        self._depth = 0
        self._fresh = 0
        self._scope: dict[str, Any] = {}
        self._names: dict[int, str] = {}

    def line(self, text: str) -> None:
        """Adds one line at the current indentation."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Adds the line `head`. The lines that are added inside the `with` become its indented body."""
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def bind(self, value: object, hint: str) -> str:
        """Returns the name under which the source can use `value`. The same object always gets the same name.

        The name begins with `hint`.
        """
        name = self._names.get(id(value))
        if name is None:
            name = f"{hint}_{len(self._names)}"
            while name in self._taken:
                name += "_"
            self._names[id(value)] = name
            self._scope[name] = value
        return name

    def fresh(self, hint: str) -> str:
        """Returns a new variable name that begins with `hint` and is not in use."""
        self._fresh += 1
        name = f"{hint}{self._fresh}"
        return self.fresh(hint) if name in self._taken else name

    def run(self) -> dict[str, Any]:
        """Compiles and executes the text. Returns its functions by name."""
        text = "\n".join(self._lines)
        # Values stand in the scope, not in the text. The names in it are of fields, which are identifiers.
        exec(compile(text, f"<{self._title}>", "exec"), self._scope)  # noqa: S102
        return self._scope
