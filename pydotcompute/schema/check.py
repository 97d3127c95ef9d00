"""What a message must pass on its way into a mailbox: its values fit its annotations.

Nearly every message fits as it is, and a generated test says so (see `fits`). A message that does not is walked node by
node: first to make its numbers and arrays those of the annotations (see `normalize`), then to say exactly what is wrong
with it, and where (see `explain`).
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
    """A function that refuses an instance whose values do not fit the annotations of its body.

    It raises MessageTypeError for a value of the wrong type, or another class than exactly `cls`, and
    MessageSerializationError for a value out of range; `path` is exact, such as `$.items[3].weight`. The header is not
    looked at. An int in a float field is of the wrong type here; see `normalize.normalizer`.
    """
    key = "__pydotcompute_checker__"
    return kept_on_class(cls, key) or keep_on_class(cls, key, _make_checker(introspect(cls)))


def door_check(cls: type) -> Callable[[object], None]:
    """Normalizes an instance, then checks it: what every message passes on its way into a mailbox."""
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
