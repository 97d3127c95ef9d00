"""The check of every message on its way into a mailbox: do its values fit its annotations?

Nearly every message fits as it is, and a generated test finds that quickly (see `fits`). Only a message that fails the
test is walked node by node, twice: first to convert its numbers and arrays to the annotated types (see `normalize`),
then to find exactly what is wrong, and where (see `explain`).
"""

from __future__ import annotations

from collections.abc import Callable

from pydotcompute.schema.explain import explain
from pydotcompute.schema.fits import compiled
from pydotcompute.schema.introspect import introspect
from pydotcompute.schema.nodes import MessageSchema, keep_on_class, kept_on_class
from pydotcompute.schema.normalize import settle

__all__ = ["checker", "door_check"]


def checker(cls: type) -> Callable[[object], None]:
    """Returns a function that refuses an instance whose values do not fit the annotations of its body.

    The function raises MessageTypeError if a value is of the wrong type, or if the instance is of any class but `cls`
    itself. It raises MessageSerializationError if a value is out of range. The `path` of the error is exact, such as
    `$.items[3].weight`. The function does not check the header, and it does not convert: an int in a float field is of
    the wrong type. `normalize.normalizer` makes a function that converts.
    """
    key = "__pydotcompute_checker__"
    return kept_on_class(cls, key) or keep_on_class(cls, key, _make_checker(introspect(cls)))


def door_check(cls: type) -> Callable[[object], None]:
    """Returns a function that normalizes an instance and then checks it. Every message passes it to enter a mailbox."""
    key = "__pydotcompute_door__"
    return kept_on_class(cls, key) or keep_on_class(cls, key, _make_door(introspect(cls)))


def _make_checker(schema: MessageSchema) -> Callable[[object], None]:
    return compiled(schema, lambda message: explain(schema, message), numbers_only=False)


def _make_door(schema: MessageSchema) -> Callable[[object], None]:
    check = checker(schema.cls)

    def settle_and_check(message: object) -> None:
        if type(message) is schema.cls:
            settle(schema, message)
        check(message)

    return compiled(schema, settle_and_check, numbers_only=False)
