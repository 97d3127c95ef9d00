"""Two versions of one message, and whether programs of the one and of the other understand each other.

`pydotcompute proto check` and the clients must say the same of each case: their tests share this table.
"""

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pydotcompute.protobuf.export.files import lock_of
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.schema import lock

PACKAGE = "pairs.v1"


def made(name: str, *fields: Any) -> Any:
    """A dataclass of this name; each field is a name, an annotation, and perhaps a default."""
    made_class = make_dataclass(name, fields, namespace={"__proto_package__": PACKAGE})
    made_class.__module__ = "pairs"
    return made_class


def kind(**members: int) -> Any:
    """An enum of the name `Kind`."""
    make: Any = enum.Enum
    made_enum = make("Kind", members, module="pairs")
    made_enum.__proto_package__ = PACKAGE
    return made_enum


def many(annotation: Any) -> Any:
    """A list of these."""
    return list[annotation]


def files(*classes: type) -> FileDescriptorSet:
    """The files of these classes."""
    pool = TypePool()
    names = [pool.add(cls).full_name for cls in classes]
    return FileDescriptorSet(file={file.name: file for name in names for file in pool.file_set(name).file}.values())


@dataclass(frozen=True)
class Case:
    """The fields of a message `M` before and now."""

    what: str
    before: list[Any]
    now: list[Any]
    fits: bool
    locked: bool = True
    """True if the daemon of now is started with the lock of before."""

    def __str__(self) -> str:
        return self.what

    @contextmanager
    def classes(self) -> Iterator[tuple[Any, Any]]:
        """The class of before, and that of now with the numbers that it has then."""
        before, now = made("M", *self.before), made("M", *self.now)
        try:
            lock.use(lock.Lock())
            numbers = lock_of(files(before), lock.Lock())
            if self.locked:
                lock.use(numbers)
            files(now)  # From here on, the numbers are kept on the class.
            yield before, now
        finally:
            lock.use(None)


CIRCLE, SQUARE, THIRD = (made(name, (f"f{index}", float)) for index, name in enumerate(("Circle", "Square", "Third")))
A = ("a", int)

CASES = [
    Case("nothing", [A], [A], True),
    Case("new, with a default", [A], [A, ("b", int, 3)], True),
    Case("new, with a made default", [A], [A, ("b", UUID, field(default_factory=lambda: UUID(int=1)))], True),
    Case("new, zero if absent", [A], [A, ("b", str)], True),
    Case("new, None if absent", [A], [A, ("b", CIRCLE | None)], True),
    Case("new, empty if absent", [A], [A, ("b", list[int]), ("c", dict[str, int]), ("d", tuple[int, ...])], True),
    Case("new, in front", [A], [("b", int), A], True),
    Case("new, in front, unlocked", [A], [("b", int), A], False, locked=False),
    Case("new and required: UUID", [A], [A, ("b", UUID)], False),
    Case("new and required: enum", [A], [A, ("b", kind(X=1))], False),
    Case("new and required: message", [A], [A, ("b", CIRCLE)], False),
    Case("new and required: union", [A], [A, ("b", CIRCLE | SQUARE)], False),
    Case("new and required: array", [A], [A, ("b", np.ndarray)], False),
    Case("new and required: time", [A], [A, ("b", datetime)], False),
    Case("new and required: a fixed length", [A], [A, ("b", tuple[int, int])], False),
    Case("new: any value, of which absent is None", [A], [A, ("b", Any)], True),
    Case("gone, with a default", [A, ("b", int, 3)], [A], True),
    Case("gone, zero if absent", [("b", str), A], [A], True),
    Case("gone, None if absent", [("b", dict | None), A], [A], True),
    Case("gone, required", [A, ("b", UUID)], [A], False),
    Case("gone, required message", [("b", CIRCLE), A], [A], False),
    Case("renamed, zero if absent", [A, ("b", str)], [A, ("c", str)], True),
    Case("renamed, unlocked", [A, ("b", str)], [A, ("c", str)], False, locked=False),
    Case("moved", [A, ("b", str)], [("b", str), A], True),
    Case("moved, unlocked", [A, ("b", str)], [("b", str), A], False, locked=False),
    Case("another default", [("a", int, 1)], [("a", int, 2)], True),
    Case("a default now", [("a", int)], [("a", int, 2)], True),
    Case("None now", [("a", int)], [("a", int | None)], True),
    Case("None no more", [("a", str | None)], [("a", str)], True),
    Case("a message or None now", [("a", CIRCLE)], [("a", CIRCLE | None)], True),
    Case("a list now", [("a", tuple[int, int])], [("a", list[int])], True),
    Case("any text now", [("a", Literal["x", "y"])], [("a", str)], True),
    Case("another type", [("a", int)], [("a", float)], False),
    Case("text and number", [("a", int)], [("a", str)], False),
    Case("many now", [("a", int)], [("a", list[int])], False),
    Case("one now", [("a", list[int])], [("a", int)], False),
    Case("a map now", [("a", list[int])], [("a", dict[str, int])], False),
    Case("other values of a map", [("a", dict[str, int])], [("a", dict[str, str])], False),
    Case("a list or None now", [("a", list[int])], [("a", list[int] | None)], False),
    Case("any value now", [("a", list)], [("a", Any)], False),
    Case("a union now", [("a", CIRCLE)], [("a", CIRCLE | SQUARE)], False),
    Case("another member of an enum", [("a", kind(X=1))], [("a", kind(X=1, Y=2))], True),
    Case("a member of an enum less", [("a", kind(X=1, Y=2))], [("a", kind(X=1))], True),
    Case("other numbers", [("a", kind(X=1, Y=2))], [("a", kind(X=2, Y=1))], False, locked=False),
    Case("another name of a number", [("a", kind(X=1, Y=2))], [("a", kind(X=1, Z=2))], False, locked=False),
    Case("another member of a union", [("a", CIRCLE | SQUARE)], [("a", CIRCLE | SQUARE | THIRD)], True),
    Case("another member in front", [("a", CIRCLE | SQUARE)], [("a", THIRD | CIRCLE | SQUARE)], False),
    Case("other members", [("a", CIRCLE | SQUARE)], [("a", CIRCLE | THIRD)], False),
    Case("new inside", [("a", many(made("P", A)))], [("a", many(made("P", A, ("b", int, 3))))], True),
    Case("new and required inside", [("a", made("P", A))], [("a", made("P", A, ("b", UUID)))], False),
    Case("another type inside", [("a", made("P", A))], [("a", made("P", ("a", str)))], False),
]
